"""The ``quarry`` command, also as ``python -m dicom_quarry``: what has to be in order before it is loaded."""

import os
import signal
import sys


def main() -> None:
    """Load the command, and run it.

    Loading takes a moment, in which Ctrl-C simply ends the process: nothing has begun.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_standard_streams()
    from dicom_quarry.cli.main import main as run_command

    run_command()


def _open_standard_streams() -> None:
    """Open closed standard streams to nowhere.

    Otherwise the first file that is opened gets their number, and messages would be written into it.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", encoding="utf-8"))  # noqa: PTH123, SIM115


if __name__ == "__main__":
    main()
