"""PixelMed's archive, in Java; it listens on all addresses of the computer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_quarry.model import AE
from tests.peers.installed import PIXELMED
from tests.peers.process import Server, free_port, listens

_LIBRARIES = (
    "hsqldb commons-codec commons-net jmdns slf4j-api slf4j-simple vecmath javax.json jaxb-api activation"
)


class PixelMed(Server):
    """PixelMed's DicomAndWebStorageServer over a database of its own."""

    base = ""

    def __init__(self, folder: Path, *, destinations: Sequence[AE] = ()) -> None:
        super().__init__(folder, "pixelmed")
        self.ae = AE("PIXELMED", "127.0.0.1", free_port())
        self._web_port = free_port()
        self._destinations = destinations

    def command(self) -> Sequence[str]:
        (self.folder / "images").mkdir(exist_ok=True)
        path = self.folder / "pixelmed.properties"
        path.write_text("\n".join(f"{key}={value}" for key, value in self._properties().items()) + "\n")
        jars = [PIXELMED, *(PIXELMED.with_name(f"{name}.jar") for name in _LIBRARIES.split())]
        classes = ":".join(map(str, jars))
        main = "com.pixelmed.server.DicomAndWebStorageServer"
        return ["java", "-Djava.awt.headless=true", "-cp", classes, main, str(path)]

    def _properties(self) -> dict[str, object]:
        properties: dict[str, object] = {
            "Application.DatabaseFileName": self.folder / "index",
            "Application.SavedImagesFolderName": self.folder / "images",
            "Dicom.ListeningPort": self.ae.port,
            "Dicom.CalledAETitle": self.ae.title,
            "Dicom.CallingAETitle": self.ae.title,
            "Dicom.PrimaryDeviceType": "ARCHIVE",
            "Dicom.RemoteAEs": " ".join(f"remote{i}" for i in range(len(self._destinations))),
            "WebServer.ListeningPort": self._web_port,
        }
        for number, ae in enumerate(self._destinations):
            remote = f"Dicom.RemoteAEs.remote{number}"
            properties[f"{remote}.CalledAETitle"] = ae.title
            properties[f"{remote}.HostNameOrIPAddress"] = ae.host
            properties[f"{remote}.Port"] = ae.port
        return properties

    def is_ready(self) -> bool:
        return listens(self.ae.port)
