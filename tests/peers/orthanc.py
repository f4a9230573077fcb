"""A real Orthanc with storage of its own."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dicom_quarry.model import AE
from tests.peers.installed import NEXT_DEBIAN, next_debian
from tests.peers.process import Server, free_port, listens

EXECUTABLE = "/usr/sbin/Orthanc"

#: Options of an Orthanc with DICOMweb.
DICOMWEB: Mapping[str, Any] = {
    "Plugins": ["/usr/share/orthanc/plugins/libOrthancDicomWeb.so"],
    "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
}


class Orthanc(Server):
    """Orthanc on free loopback ports; ``options`` are keys of its configuration and win over ours.

    Destinations of C-MOVE are given at the start or registered later, while it runs.
    """

    def __init__(
        self,
        folder: Path,
        *,
        aet: str = "ORTHANC",
        destinations: Sequence[AE] = (),
        options: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(folder, "orthanc")
        self.ae = AE(aet, "127.0.0.1", free_port())
        self.http_port = free_port()
        self._destinations = list(destinations)
        self._options = dict(options or {})

    @property
    def base(self) -> str:
        """The base URL of its DICOMweb services, if it has any."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def command(self) -> Sequence[str]:
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(self._configuration(), indent=1))
        return [*self.program(), str(path)]

    def program(self) -> Sequence[str]:
        """The start of the command line."""
        return [shutil.which("Orthanc") or EXECUTABLE]

    def _configuration(self) -> dict[str, object]:
        return {
            "Name": "quarry-test",
            "StorageDirectory": str(self.folder / "storage"),
            "IndexDirectory": str(self.folder / "storage"),
            "Plugins": [],
            "ConcurrentJobs": 8,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.ae.title,
            "DicomPort": self.ae.port,
            "DicomCheckCalledAet": False,
            # One thread an association: fewer than the associations of a job, and the last one starves.
            "DicomThreadsCount": 32,
            "DicomAlwaysAllowEcho": True,
            "DicomAlwaysAllowStore": True,
            "DicomAlwaysAllowFind": True,
            "DicomAlwaysAllowGet": True,
            "DicomAlwaysAllowMove": True,
            "DicomModalities": {ae.title: _modality(ae) for ae in self._destinations},
            "UnknownSopClassAccepted": True,
            "AcceptedTransferSyntaxes": ["1.2.840.10008.1.*"],
            "OverwriteInstances": True,
            "SynchronousCMove": True,
            "SaveJobs": False,
            "JobsHistorySize": 1000,
            **self._options,
        }

    def is_ready(self) -> bool:
        try:
            self.get("/system")
        except (OSError, http.client.HTTPException):
            return False
        return listens(self.ae.port)

    def register(self, *destinations: AE) -> None:
        """Make these known as destinations of C-MOVE; lost at a restart, unlike those of the constructor."""
        for ae in destinations:
            self.request("PUT", f"/modalities/{ae.title}", json.dumps(_modality(ae)).encode())

    def load(self, files: Iterable[Path | bytes]) -> None:
        """Store instances, over one HTTP connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            for file in files:
                data = file if isinstance(file, bytes) else file.read_bytes()
                answer = _store(connection, data)
                text = answer.read()
                name = "" if isinstance(file, bytes) else file.name
                assert answer.status == 200, f"Orthanc does not take {name}: {text!r}"
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """The decoded JSON of a REST resource."""
        return json.loads(self.request("GET", path))

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """One REST call; the answer's body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        assert answer.status == 200, f"{method} {path}: {answer.status} {text!r}"
        return text

    def move_jobs(self) -> int:
        """Transfers that Orthanc has made jobs of, which it does with ``SynchronousCMove: false`` only."""
        jobs = self.get("/jobs?expand")
        return sum(job["Type"] == "DicomModalityStore" for job in jobs)


class NextOrthanc(Orthanc):
    """The Orthanc of the next Debian, with its DICOMweb plugin."""

    def __init__(self, folder: Path, *, destinations: Sequence[AE] = ()) -> None:
        plugin = f"{NEXT_DEBIAN}{DICOMWEB['Plugins'][0]}"
        super().__init__(folder, destinations=destinations, options={**DICOMWEB, "Plugins": [plugin]})

    def program(self) -> Sequence[str]:
        return next_debian("sbin/Orthanc")


def _modality(ae: AE) -> dict[str, object]:
    return {"AET": ae.title, "Host": ae.host, "Port": ae.port}


def _store(connection: http.client.HTTPConnection, data: bytes) -> http.client.HTTPResponse:
    """Store an instance, over a new connection where Orthanc has closed the idle one (after a second)."""
    try:
        connection.request("POST", "/instances", data, {"Content-Type": "application/dicom"})
        return connection.getresponse()
    except (ConnectionError, http.client.RemoteDisconnected):
        connection.close()
        connection.request("POST", "/instances", data, {"Content-Type": "application/dicom"})
        return connection.getresponse()
