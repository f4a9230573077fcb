"""C-GET by pynetdicom, all studies on one association, each instance written as it came.

python -m bench.pynetdicom_get HOST PORT FOLDER FILE-OF-STUDY-UIDS
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt

_CT = "1.2.840.10008.5.1.4.1.1.2"
_GET = "1.2.840.10008.5.1.4.1.2.2.3"  # Study Root


def main(host: str, port: str, folder: str, uids: str) -> None:
    """Fetch every study whose UID is in a file; ends with 1 if one of them fails."""
    target = Path(folder)

    def store(event: evt.Event) -> int:
        uid = str(getattr(event.request, "AffectedSOPInstanceUID", ""))
        (target / f"{uid}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    ae = AE("PYNETDICOM")
    ae.add_requested_context(_GET)
    ae.add_requested_context(_CT, ExplicitVRLittleEndian)
    association = ae.associate(
        host,
        int(port),
        ext_neg=[build_role(_CT, scp_role=True)],
        evt_handlers=[(evt.EVT_C_STORE, store)],
        max_pdu=0,
    )
    if not association.is_established:
        sys.exit("no association")
    for uid in Path(uids).read_text().split():
        wanted = Dataset()
        wanted.QueryRetrieveLevel, wanted.StudyInstanceUID = "STUDY", uid
        *_, (status, _) = association.send_c_get(wanted, _GET)
        if status.Status != 0x0000:
            sys.exit(f"{uid}: {status.Status:04X}")
    association.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
