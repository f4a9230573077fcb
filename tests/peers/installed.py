"""Where the archives of ``tests/install-peers.sh`` are, and the reasons why one of them cannot be tried."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

_BUILD = Path(__file__).parents[2] / "build" / "peers"

#: The Python that has the archives of requirements/peers.txt.
PYTHON = _BUILD / "python" / "bin" / "python"
#: Node packages, by tests/peers/dcmjs/package-lock.json.
NODE_MODULES = _BUILD / "node" / "node_modules"
#: A small system of the next Debian, with its Orthanc and DCMTK.
NEXT_DEBIAN = _BUILD / "debian"
PIXELMED = Path("/usr/share/java/pixelmed.jar")

_HOW = "tests/install-peers.sh installs it"


def lacks(path: Path) -> str:
    """Return the reason why what needs this file cannot run; empty if it can."""
    return "" if path.exists() else f"{path} is missing: {_HOW}"


def lacks_command(name: str) -> str:
    """Return the reason why what needs this command cannot run; empty if it can."""
    return "" if shutil.which(name) else f"the command {name} is missing: {_HOW}"


def lacks_private_network() -> str:
    """Return the reason why a server that listens on all addresses may not be started; empty if it may."""
    if {name for _, name in socket.if_nameindex()} <= {"lo"}:
        return ""
    return "it listens on all addresses of the computer: make test-peers runs it in a network namespace"


def next_debian(program: str) -> list[str]:
    """Return the start of a command line that runs a program of the next Debian, with its own libraries."""
    loader = NEXT_DEBIAN / "lib64" / "ld-linux-x86-64.so.2"
    libraries = NEXT_DEBIAN / "usr" / "lib" / "x86_64-linux-gnu"
    dictionary = NEXT_DEBIAN / "usr" / "share" / "dcmtk" / "dicom.dic"
    environment = ["env", f"DCMDICTPATH={dictionary}"]
    return [*environment, str(loader), "--library-path", str(libraries), str(NEXT_DEBIAN / "usr" / program)]
