"""tiny-pacs with its DICOMweb services, in an environment of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from dicom_quarry.model import AE
from tests.peers.installed import PYTHON
from tests.peers.process import Server, free_port, listens

_LAUNCHER = Path(__file__).with_name("tiny_pacs_launcher.py")


class TinyPacs(Server):
    """tiny-pacs on loopback ports; it stores files, and sends them as they are."""

    def __init__(self, folder: Path, *, destinations: Sequence[AE] = ()) -> None:
        super().__init__(folder, "tiny-pacs")
        self.ae = AE("TINYPACS", "127.0.0.1", free_port())
        self.http_port = free_port()
        self.base = f"http://127.0.0.1:{self.http_port}/dicom-web"
        self._destinations = destinations

    def command(self) -> Sequence[str]:
        path = self.folder / "tiny-pacs.json"
        path.write_text(json.dumps(self._configuration(), indent=1))
        return [str(PYTHON), "-P", str(_LAUNCHER), "run", "-c", str(path)]

    def _configuration(self) -> dict[str, object]:
        devices = {
            ae.title: {"aet": ae.title, "address": ae.host, "port": ae.port} for ae in self._destinations
        }
        console = {"class": "logging.StreamHandler"}
        components: dict[str, dict[str, object]] = {
            "Database": {"driver": "sqlite", "db_name": str(self.folder / "index.db"), "mode": "rwc"},
            "Devices": {"auto_add": False, "devices": devices},
            "PACS": {},
            "FileStorage": {"storage_dir": str(self.folder / "files")},
            "HttpServer": {"port": self.http_port},
            "DICOMWeb": {"prefix": "/dicom-web"},
        }
        return {
            "ae": {"ae_title": [self.ae.title], "port": self.ae.port, "dump_ds": False},
            "log": {
                "version": 1,
                "handlers": {"console": console},
                "root": {"level": "INFO", "handlers": ["console"]},
            },
            "components": {
                "InMemoryStorage": {"on": False},
                **{name: {"on": True, **settings} for name, settings in components.items()},
            },
        }

    def is_ready(self) -> bool:
        return listens(self.ae.port) and listens(self.http_port)
