"""Small datasets, and a store to put them in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import pack

from dicom_quarry.model import Header, InstanceAdmission, InstanceInfo, Receipt
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.permissions import PRIVATE, Permissions

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFAULT = "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm"
SOP_UID = "1.2.3.4.5"


def element(tag: int, vr: str, value: bytes, *, explicit: bool = True) -> bytes:
    if len(value) & 1:
        value += b"\0" if vr == "UI" else b" "
    if not explicit:
        return pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
    head = pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (pack("<HL", 0, len(value)) if vr == "OW" else pack("<H", len(value))) + value


def dataset(
    sop_uid: str = SOP_UID,
    *,
    patient: str = "4711",
    pixels: bytes = b"\1\2" * 50,
    before: bytes = b"",
    explicit: bool = True,
    without: int = 0,
) -> bytes:
    """A CT instance of study 1.2.3 and series 1.2.3.4; ``before`` stands before the patient's ID."""
    parts = {
        0x00080018: ("UI", sop_uid.encode()),
        0x00080050: ("SH", b"A1"),
        0x00090000: ("", before),
        0x00100020: ("LO", patient.encode()),
        0x0020000D: ("UI", b"1.2.3"),
        0x0020000E: ("UI", b"1.2.3.4"),
        0x7FE00010: ("OW", pixels),
    }
    return b"".join(
        element(tag, vr, value, explicit=explicit) if vr else value
        for tag, (vr, value) in parts.items()
        if tag != without
    )


def arrival(
    sop_uid: str = SOP_UID, *, transfer_syntax: str = EXPLICIT, calling_ae: str = "PACS"
) -> InstanceInfo:
    return InstanceInfo(CT, sop_uid, transfer_syntax, calling_ae)


def anyone(_arrival: InstanceInfo, _header: Header) -> InstanceAdmission:
    return InstanceAdmission()


def make_store(
    root: Path,
    pattern: str = DEFAULT,
    *,
    admit: Callable[[InstanceInfo, Header], InstanceAdmission] = anyone,
    sync_each: bool = False,
    access: Permissions = PRIVATE,
    stores_non_patient: bool = False,
) -> InstanceStore:
    template = PathTemplate.parse(pattern, columns=["Site"], for_job=False)
    incoming = root / ".incoming"
    return InstanceStore(
        root,
        template,
        incoming=incoming,
        admit=admit,
        sync_each=sync_each,
        access=access,
        stores_non_patient=stores_non_patient,
    )


def put(
    store: InstanceStore, data: bytes, announced: InstanceInfo | None = None, *, piece: int = 1 << 17
) -> Receipt:
    writer = store.begin(announced or arrival())
    view = memoryview(data)
    for at in range(0, len(data), piece):
        writer.write(view[at : at + piece])
    return writer.commit()


def files(root: Path) -> list[str]:
    """Every file below the root, temporary ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())
