"""pynetdicom's own archive: ``python -m pynetdicom qrscp``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dicom_quarry.model import AE
from tests.peers.process import Server, free_port, listens


class Qrscp(Server):
    """qrscp over an index of its own. It decodes what it stores, and encodes it again to send it."""

    base = ""

    def __init__(self, folder: Path, *, destinations: Sequence[AE] = ()) -> None:
        super().__init__(folder, "qrscp")
        self.ae = AE("QRSCP", "127.0.0.1", free_port())
        self._destinations = destinations

    def command(self) -> Sequence[str]:
        path = self.folder / "qrscp.ini"
        path.write_text("\n".join(self._settings()))
        return [sys.executable, "-m", "pynetdicom", "qrscp", "-c", str(path)]

    def _settings(self) -> list[str]:
        lines = [
            "[DEFAULT]",
            f"ae_title: {self.ae.title}",
            f"port: {self.ae.port}",
            "bind_address: 127.0.0.1",
            "max_pdu: 16382",
            *(f"{kind}_timeout: 30" for kind in ("acse", "dimse", "network")),
            f"instance_location: {self.folder / 'instances'}",
            f"database_location: {self.folder / 'index.sqlite'}",
            "log_identifier: False",
        ]
        for ae in self._destinations:
            lines += [f"[{ae.title}]", f"address: {ae.host}", f"port: {ae.port}"]
        return lines

    def is_ready(self) -> bool:
        return listens(self.ae.port)
