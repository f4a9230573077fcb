"""A small archive written on dcmjs-dimse, the services of Node's DICOM library."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dicom_quarry.model import AE
from tests.peers.installed import NODE_MODULES
from tests.peers.process import Server, free_port, listens

_SCRIPT = Path(__file__).parent / "dcmjs" / "archive.js"


class DcmjsArchive(Server):
    """It keeps its instances in memory, decoded, and sends them uncompressed."""

    base = ""

    def __init__(self, folder: Path, *, destinations: Sequence[AE] = ()) -> None:
        super().__init__(folder, "dcmjs")
        self.ae = AE("DCMJS", "127.0.0.1", free_port())
        self._destinations = destinations

    def command(self) -> Sequence[str]:
        known = {ae.title: {"host": ae.host, "port": ae.port} for ae in self._destinations}
        node = ["env", f"NODE_MODULES={NODE_MODULES}", "node", str(_SCRIPT)]
        return [*node, self.ae.title, str(self.ae.port), json.dumps(known)]

    def is_ready(self) -> bool:
        return listens(self.ae.port)
