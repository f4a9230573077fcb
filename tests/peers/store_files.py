"""Loading an archive by C-STORE, with pynetdicom: every file in the transfer syntax that it has."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import groupby

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE as Application
from pynetdicom import _config

from dicom_quarry.model import AE
from tests.peers.corpus import Corpus, Item


def store_files(corpus: Corpus, peer: AE) -> Corpus:
    """Send the corpus; return the instances that the archive accepted.

    A file whose file meta information names another instance than its dataset is not sent.
    """
    ordered = sorted(corpus.items, key=_context)
    accepted: list[Item] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pynetdicom's remarks about odd files
        for (sop_class, transfer_syntax), items in groupby(ordered, _context):
            accepted += _store(list(items), peer, sop_class, transfer_syntax)
    return Corpus(tuple(accepted))


def _context(item: Item) -> tuple[str, str]:
    return item.sop_class, item.transfer_syntax


def _store(items: list[Item], peer: AE, sop_class: str, transfer_syntax: str) -> Iterator[Item]:
    """Send instances of one class and syntax over one association, or over more where it is aborted."""
    application = Application("LOADER")
    application.add_requested_context(sop_class, transfer_syntax)
    waiting = [item for item in items if _named_rightly(item)]
    while waiting:
        association = application.associate(peer.host, peer.port, ae_title=peer.title)
        if not association.is_established:
            return  # the archive does not take this class, or this syntax
        while waiting and association.is_established:
            item = waiting.pop(0)
            if association.send_c_store(item.path).get("Status") == 0x0000:
                yield item
        association.release()


def _named_rightly(item: Item) -> bool:
    return str(read_file_meta_info(item.path).get("MediaStorageSOPInstanceUID")) == item.sop_uid


#: Files are sent as they are, without decoding them.
_config.STORE_SEND_CHUNKED_DATASET = True
