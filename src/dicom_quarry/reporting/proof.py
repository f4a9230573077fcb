"""proof.json, the record of how complete a job is, by which later changes are found (docs/proof.md).

It has counts, digests, times, versions and the names of the archives; nothing in it names a patient. The
audit log, which does, is in it by its hash chain alone.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import platform
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dicom_quarry.config.settings import parse_recorded_settings
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.audit_chain import AuditChain, compute_chain
from dicom_quarry.jobs.audit_log import AUDIT_NAME
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.system.atomic_file import atomic_write
from dicom_quarry.system.permissions import PRIVATE, Permissions
from dicom_quarry.version import __version__

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PROOF_NAME: Final = "proof.json"
SIGNATURE_NAME: Final = "proof.json.sig"
FORMAT: Final = "quarry-proof-1"

_MANIFEST_NAME: Final = "manifest.csv.gz"
_GZIP_MAGIC: Final = b"\x1f\x8b"

_STATEMENT: Final = (
    "This file shows later changes of the files, the manifest, the counts and the audit log of a job. It "
    "proves nothing against its maker, unless its SHA-256 was deposited elsewhere: the maker can write "
    "another one at any time. A signature shows which key signed it, and no more."
)


@dataclass(frozen=True, slots=True)
class ManifestDigest:
    """A manifest: its ``files`` and their ``size``, its own SHA-256, and that of its unpacked text."""

    files: int
    size: int
    sha256: str
    unpacked_sha256: str

    @property
    def is_packed(self) -> bool:
        """True unless the manifest is the text itself."""
        return self.sha256 != self.unpacked_sha256


def digest_manifest(path: Path) -> ManifestDigest:
    """Read a manifest, packed or not; raise InputError if it cannot be read, or has no sizes."""
    digest = hashlib.sha256()

    def read_lines(stream: Iterable[bytes]) -> Iterator[str]:
        for line in stream:
            digest.update(line)
            yield line.decode()

    try:
        with path.open("rb") as file:
            packed = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            is_packed = file.read(2) == _GZIP_MAGIC
            file.seek(0)
            lines = read_lines(gzip.GzipFile(fileobj=file) if is_packed else file)
            sizes = [int(line["bytes"]) for line in csv.DictReader(lines)]
    except (OSError, EOFError, zlib.error, csv.Error, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path.name} cannot be read as a manifest ({error})") from error
    return ManifestDigest(len(sizes), sum(sizes), packed, digest.hexdigest())


def write_proof(
    folder: JobPlace,
    reader: LedgerReader,
    *,
    permissions: Permissions = PRIVATE,
    key: Ed25519PrivateKey | None = None,
) -> None:
    """Write proof.json, as the last report of a job, and with ``key`` its signature. Raises OSError.

    A proof with the same content stays, byte for byte, with its signature: its digest may be deposited. A
    crash leaves the earlier proof, or one without its signature.
    """
    path, signature = folder.out / PROOF_NAME, folder.out / SIGNATURE_NAME
    proof = _build_proof(folder, reader)
    content = _read_same(path, proof)
    if content is None:
        content = render_proof(proof)
        signature.unlink(missing_ok=True)
        with atomic_write(path, permissions) as file:
            file.write(content)
    else:
        os.utime(path)  # it is as new as the other reports
    if key is not None:
        with atomic_write(signature, permissions) as file:
            file.write(key.sign(content))


def _read_same(path: Path, proof: dict[str, Any]) -> bytes | None:
    """Return the proof that is there if it differs by the time of its writing alone, else None."""
    try:
        content = path.read_bytes()
        former = json.loads(content)
        times = former["times"]
        former["times"] = {**times, "written": proof["times"]["written"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if former == proof and render_proof({**former, "times": times}) == content else None


def render_proof(proof: Mapping[str, Any]) -> bytes:
    """Return the text of a proof, which has one form alone."""
    return json.dumps(proof, indent=2).encode() + b"\n"


def _build_proof(folder: JobPlace, reader: LedgerReader) -> dict[str, Any]:
    # First the audit log: what is written to it meanwhile shows that the proof is not of the end.
    audit = compute_chain(folder.read_audit())
    listed = digest_manifest(folder.out / _MANIFEST_NAME)
    facts = describe_job(reader, audit)
    written = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "format": FORMAT,
        "statement": _STATEMENT,
        "check": "quarry verify FOLDER --proof",
        "versions": {
            "quarry": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("pydicom", "pynetdicom")},
        },
        **facts,
        "times": {**facts["times"], "written": written},
        "manifest": {
            "file": _MANIFEST_NAME,
            "files": listed.files,
            "bytes": listed.size,
            "sha256": listed.sha256,
            "unpacked_sha256": listed.unpacked_sha256,
        },
        "audit": {
            "file": AUDIT_NAME,
            "records": audit.records,
            "head": audit.head,
            "every": audit.every,
            "values": list(audit.values),
        },
    }


def describe_job(reader: LedgerReader, audit: AuditChain) -> dict[str, Any]:
    """Return what a proof has of a job's record: archives, times and counts."""
    metadata, counts = reader.metadata(), reader.counts()
    return {
        "archives": [
            {"name": archive.name, "address": archive.description}
            for archive in parse_recorded_settings(metadata).archives
        ],
        "times": {
            "created": metadata["created"].replace("+00:00", "Z"),
            "started": audit.started,
            "ended": audit.ended,
        },
        "finished": counts.is_finished,
        "rows": {
            "total": counts.rows,
            "by_outcome": {str(name): number for name, number in sorted(counts.rows_by_status.items())},
        },
        "studies": {
            "total": counts.studies,
            "complete": counts.studies_complete,
            "released": counts.studies_released,
        },
        "instances": {
            "expected": counts.instances_expected,
            "stored": counts.instances_stored,
            "bytes": counts.size,
        },
    }
