"""Count the modules that one row and one received instance run through: ``python -m bench.module_trace``.

One study of one image is extracted by C-MOVE from a demo archive in a separate process. A module counts when
one of its functions is called. Generated functions, such as the ``__init__`` of a dataclass, do not count. A
row counts on all threads, an instance on the thread of the archive's association.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path
from types import FrameType

from dicom_quarry.cli.main import main as quarry
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import generate_studies

PACKAGE = "dicom_quarry"
_FUNCTION = 0x2  # CO_NEWLOCALS: neither a module's body nor, together with CO_OPTIMIZED, a class's
_OPTIMIZED = 0x1


class ModuleTrace:
    """The modules of the package in which a function was called, by the name of the thread."""

    def __init__(self) -> None:
        self.modules: dict[str, set[str]] = {}

    def __call__(self, frame: FrameType, event: str, _argument: object) -> None:
        name = str(frame.f_globals.get("__name__", ""))
        code = frame.f_code
        is_function = code.co_flags & _FUNCTION and code.co_flags & _OPTIMIZED
        is_generated = code.co_filename.startswith("<")
        if event == "call" and name.startswith(PACKAGE) and is_function and not is_generated:
            self.modules.setdefault(threading.current_thread().name, set()).add(name)

    def start(self) -> None:
        """Trace this thread and every thread that is started from now on."""
        threading.setprofile(self)
        sys.setprofile(self)

    def stop(self) -> None:
        """Trace no further."""
        sys.setprofile(None)
        threading.setprofile(None)


def _serve(port: int, destination: int) -> None:
    studies = generate_studies(1, seed=4, profile="tiny", images=1)
    with DemoArchive(studies, port=port, destinations={"QUARRY": ("127.0.0.1", destination)}):
        print(studies[0].patient.patient_id, studies[0].accession, flush=True)
        signal.sigwait({signal.SIGTERM})


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def trace_extraction(folder: Path) -> ModuleTrace:
    """Extract one row into a folder; the modules that it ran through."""
    port, destination = _free_port(), _free_port()
    command = [sys.executable, "-m", "bench.module_trace", str(port), str(destination)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as archive:
        assert archive.stdout is not None
        patient_id, accession = archive.stdout.readline().split()
        cohort = folder / "cohort.csv"
        cohort.write_text(f"PatientID,Accession\n{patient_id},{accession}\n")
        remote, local = f"DEMO@127.0.0.1:{port}", f"QUARRY@127.0.0.1:{destination}"
        sys.argv = ["quarry", "extract", str(cohort), "--from", remote, "--as", local]
        sys.argv += ["--to", str(folder / "out")]
        trace = ModuleTrace()
        try:
            trace.start()
            quarry()
        except SystemExit as end:
            assert not end.code, f"the extraction ended with exit code {end.code}"
        finally:
            trace.stop()
            archive.send_signal(signal.SIGTERM)
    return trace


def _show(title: str, modules: set[str]) -> None:
    print(f"{title}: {len(modules)} modules")
    for name in sorted(modules):
        print(f"  {name.removeprefix(PACKAGE + '.')}")


def main() -> None:
    """Trace one extraction and print both counts with the modules' names."""
    with tempfile.TemporaryDirectory() as folder:
        trace = trace_extraction(Path(folder))
    _show("\none row, by C-MOVE", set().union(*trace.modules.values()))
    _show("\none received instance", trace.modules["association"])


if __name__ == "__main__":
    if len(sys.argv) == 3:
        _serve(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
