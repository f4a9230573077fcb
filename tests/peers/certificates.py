"""Certificates for tests, made by the openssl command: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

_EXTENSIONS = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its key, both PEM files."""

    certificate: Path
    key: Path


def openssl(*arguments: object) -> None:
    """Run the command."""
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


class Authority:
    """Signs certificates for this computer, by its loopback address; ``ca`` is its own."""

    def __init__(self, folder: Path, name: str = "hospital") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = name
        self.ca = folder / f"{name}-ca.pem"
        self.ca_key = folder / f"{name}-ca.key"
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", 30, "-subj", f"/CN={name} authority", "-keyout", self.ca_key, "-out", self.ca),
        )

    def issue(
        self, name: str, *, days: int = 30, extensions: str = _EXTENSIONS, rsa: bool = False
    ) -> Identity:
        """A certificate; with negative ``days`` it has expired."""
        base = self._folder / f"{self._name}-{name}"
        key, request = base.with_suffix(".key"), base.with_suffix(".csr")
        certificate, extra = base.with_suffix(".pem"), base.with_suffix(".ext")
        extra.write_text(extensions)
        kind = ("rsa:2048",) if rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        openssl(
            *("req", "-newkey", *kind, "-nodes"),
            *("-subj", f"/CN={name}", "-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial"),
            *("-days", days, "-extfile", extra, "-out", certificate),
        )
        return Identity(certificate, key)
