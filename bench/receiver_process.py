"""Receivers that need an entry of their own, a process each.

Run as ``python -m bench.receiver_process KIND PORT FOLDER``.

``job``: Quarry's receiver with all that an extraction puts behind it: header scan, digest, admission, the
paths, the ledger. On SIGUSR1 it makes the studies durable, as a job does at their end, and writes the file
``synced``. ``pynetdicom``: its receiver at its best, writing the bytes as they came.
"""

from __future__ import annotations

import itertools
import signal
import sys
from pathlib import Path

from bench.store_sender import study_uid

#: The file that a job's receiver makes once what has arrived is durable.
SYNCED = "synced"


def job(port: int, folder: Path) -> None:
    from dicom_quarry.config.settings import DEFAULT_FILEPATH
    from dicom_quarry.extraction.inbound import InboundStudies
    from dicom_quarry.extraction.inbound_sink import InboundSink
    from dicom_quarry.ledger.cohort_rows import insert_rows
    from dicom_quarry.ledger.ledger import Ledger
    from dicom_quarry.model import AE, Request, Selection, Study
    from dicom_quarry.receiver.server import Receiver
    from dicom_quarry.store.instance_store import InstanceStore
    from dicom_quarry.store.path_template import PathTemplate

    ledger = Ledger(folder / "ledger.sqlite")
    requests = [Request(n + 1, n + 2, (("AccessionNumber", str(n)),), (str(n),)) for n in range(8)]
    ledger.database.write(lambda connection: insert_rows(connection, requests))
    deliveries = InboundStudies(ledger, lambda _task: {})
    for number, request in enumerate(requests):
        # The study arrives as the archive listed it: no instance is a mismatch.
        study = Study(study_uid(number), patient_id="BENCH", accession="BENCH")
        ledger.resolve_request(request, "bench", [(study, Selection())]).result()
    studies = [deliveries.open(task, ()) for task in ledger.waiting_tasks(0.0, len(requests))]
    template = PathTemplate.parse(DEFAULT_FILEPATH)
    store = InstanceStore(folder / "received", template, incoming=folder / "incoming", admit=deliveries.admit)
    receiver = Receiver(AE("BENCH", "127.0.0.1", port), InboundSink(store, deliveries))
    receiver.start()

    def sync(_signal: int, _frame: object) -> None:
        store.sync([path for study in studies for path in study.unsynced])
        (folder / SYNCED).touch()

    signal.signal(signal.SIGUSR1, sync)


def pynetdicom(port: int, folder: Path) -> None:
    from pynetdicom import AE, AllStoragePresentationContexts, evt
    from pynetdicom.events import Event

    (folder / "received").mkdir()
    numbers = itertools.count()

    def store(event: Event) -> int:
        with (folder / "received" / f"{next(numbers)}.dcm").open("wb") as file:
            file.write(event.encoded_dataset())
        return 0x0000

    ae = AE("BENCH")
    ae.supported_contexts = AllStoragePresentationContexts
    ae.maximum_pdu_size = 131072
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])


def main() -> None:
    kind, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if kind == "pynetdicom":
        pynetdicom(port, folder)
    else:
        job(port, folder)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
