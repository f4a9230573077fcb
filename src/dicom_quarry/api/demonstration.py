"""The demo archive: synthetic studies on the loopback interface, and tables to extract from it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.demo.dicomweb_server import DemoWebServer
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.sample_cohorts import (
    make_demo_studies,
    make_late_study,
    make_tutorial_studies,
    write_cohorts,
)

#: The workers of docs/many-hosts.md, as the archive knows them.
_WORKERS = {f"QUARRY{number}": ("127.0.0.1", 11111 + number) for number in (1, 2, 3)}


@dataclass(frozen=True, slots=True)
class RunningDemo:
    """The demo archive while it runs: its address over DIMSE and DICOMweb, and our receiver as it knows it.

    ``destinations`` are the receivers that it knows, by AE title: ours, and those of workers.
    ``add_late_study`` archives the study that docs/first-extraction.md misses at first.
    """

    archive: str
    web_url: str
    local: str
    destinations: Mapping[str, tuple[str, int]]
    studies: int
    cohorts: list[Path]
    add_late_study: Callable[[], None]


@contextmanager
def run_demo(folder: Path, *, archive_port: int = 0, local_port: int = 0) -> Iterator[RunningDemo]:
    """Run the demo archive and write its cohort tables into ``folder``.

    A port that is 0 or in use is replaced by a free one.
    """
    studies = make_demo_studies()
    folder.mkdir(parents=True, exist_ok=True)
    cohorts = write_cohorts(folder, studies)
    held = [*studies, *make_tutorial_studies()]
    port = _free_port(local_port)
    destinations = {"QUARRY": ("127.0.0.1", port), **_WORKERS}
    archive = DemoArchive(held, port=_free_port(archive_port), destinations=destinations)
    with archive, DemoWebServer(archive.catalogue) as web:

        def add_late_study() -> None:
            archive.catalogue = web.catalogue = Catalogue([*held, make_late_study()])

        yield RunningDemo(
            archive=f"DEMO@127.0.0.1:{archive.port}",
            web_url=web.base_url,
            local=f"QUARRY@127.0.0.1:{port}",
            destinations=destinations,
            studies=len(held),
            cohorts=cohorts,
            add_late_study=add_late_study,
        )


def _free_port(preferred: int) -> int:
    for port in (preferred, 0):
        with closing(socket.socket()) as probe:
            # Connections of an earlier run that are still closing do not keep the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise AssertionError("the system gives a free port")
