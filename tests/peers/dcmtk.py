"""DCMTK's archive and its receiver."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from dicom_quarry.model import AE
from tests.peers.installed import next_debian
from tests.peers.process import Server, free_port, listens


def storescu(files: Sequence[Path], peer: AE) -> None:
    """Send files with DCMTK's storescu."""
    # -R proposes what the files need, and nothing else: there are more classes than contexts.
    command = ["storescu", "-R", "-aec", peer.title, peer.host, str(peer.port), *map(str, files)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


class Dcmqrscp(Server):
    """DCMTK's dcmqrscp over an index of its own; ``extra`` are further command line options.

    It forwards compressed images only in the syntax that ``extra`` names (such as ``-xs``), and knows its
    destinations from its configuration: registering one restarts it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        aet: str = "DCMQRSCP",
        destinations: Sequence[AE] = (),
        extra: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, "dcmqrscp")
        self.ae = AE(aet, "127.0.0.1", free_port())
        self._destinations = list(destinations)
        self._extra = list(extra)
        self._database = folder / aet
        self._database.mkdir(exist_ok=True)
        self._loaded = 0

    def command(self) -> Sequence[str]:
        path = self.folder / "dcmqrscp.cfg"
        path.write_text(self._configuration())
        return [*self.program("dcmqrscp"), "-c", str(path), "-v", *self._extra, str(self.ae.port)]

    def program(self, name: str) -> Sequence[str]:
        """The start of a command line of DCMTK."""
        return [name]

    def _configuration(self) -> str:
        hosts = [f"host{i} = ({ae.title}, {ae.host}, {ae.port})" for i, ae in enumerate(self._destinations)]
        return "\n".join(
            [
                f"NetworkTCPPort = {self.ae.port}",
                "MaxPDUSize = 16384",
                "MaxAssociations = 64",
                "HostTable BEGIN",
                *hosts,
                "HostTable END",
                "VendorTable BEGIN",
                "VendorTable END",
                "AETable BEGIN",
                f"{self.ae.title} {self._database} RW (500, 4096mb) ANY",
                "AETable END",
                "",
            ]
        )

    def is_ready(self) -> bool:
        return listens(self.ae.port)

    def register(self, *destinations: AE) -> None:
        """Make these known as destinations of C-MOVE; those of the same title before are forgotten."""
        titles = {ae.title for ae in destinations}
        self._destinations = [ae for ae in self._destinations if ae.title not in titles] + list(destinations)
        if self._child is not None:
            self.restart()

    def forget(self) -> None:
        """Know no destination any more."""
        self._destinations.clear()
        if self._child is not None:
            self.restart()

    def load(self, files: Iterable[Path | bytes]) -> None:
        """Copy instances into the storage area and index them."""
        copies = []
        for file in files:
            self._loaded += 1
            copy = self._database / f"{self._loaded:06d}.dcm"
            if isinstance(file, bytes):
                copy.write_bytes(file)
            else:
                shutil.copyfile(file, copy)
            copies.append(str(copy))
        for first in range(0, len(copies), 500):
            command = [*self.program("dcmqridx"), str(self._database), *copies[first : first + 500]]
            subprocess.run(command, check=True, capture_output=True, timeout=120)


class NextDcmqrscp(Dcmqrscp):
    """The dcmqrscp of the next Debian's DCMTK."""

    base = ""

    def program(self, name: str) -> Sequence[str]:
        return next_debian(f"bin/{name}")


class Storescp(Server):
    """DCMTK's storescp, which writes the dataset exactly as received (``+B``), in any syntax it knows."""

    def __init__(self, folder: Path, *, aet: str = "STORESCP", extra: Sequence[str] = ()) -> None:
        super().__init__(folder, "storescp")
        self.ae = AE(aet, "127.0.0.1", free_port())
        self.received = folder / "received"
        self.received.mkdir(exist_ok=True)
        self._extra = list(extra)

    def command(self) -> Sequence[str]:
        options = ["+B", "+xa", "-pm", "--fork", "-aet", self.ae.title, "-od", str(self.received)]
        return ["storescp", *options, *self._extra, str(self.ae.port)]

    def is_ready(self) -> bool:
        return listens(self.ae.port)
