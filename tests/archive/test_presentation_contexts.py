"""Presentation contexts of a C-GET: as many as are needed, never more than an association has."""

from __future__ import annotations

from collections import Counter

import pytest

from dicom_quarry.archive.dimse.storage_contexts import (
    COMMON_SOP_CLASSES,
    MAX_STORAGE_CONTEXTS,
    StorageProposal,
    group_series,
    select_sop_classes,
)
from dicom_quarry.wire.negotiation import MAX_CONTEXTS, is_storage, propose_contexts

RAW = "1.2.840.10008.5.1.4.1.1.66"
CT, SR, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11", "1.2.752.24.3.7.6"
US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
EXPLICIT, IMPLICIT, DEFLATED, JPEG_2000, HEVC = (
    f"1.2.840.10008.1.2{end}" for end in (".1", "", ".1.99", ".4.90", ".4.107")
)
SEVENTY = sorted(COMMON_SOP_CLASSES)[:70]


def proposal(*classes: str, is_repeat: bool = False) -> StorageProposal:
    return StorageProposal(frozenset(classes), is_repeat)


def offered(classes: set[str], *, is_repeat: bool = False) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for abstract, transfer in proposal(*classes, is_repeat=is_repeat).contexts():
        found.setdefault(abstract, []).append(tuple(transfer))
    return found


def test_every_pair_of_class_and_syntax_is_a_context_while_there_is_room() -> None:
    found = offered({CT, SR})
    assert proposal(CT, SR).fits_one_association
    assert all(len(transfer) == 1 for contexts in found.values() for transfer in contexts)
    assert found[CT][0] == (EXPLICIT,)
    assert (JPEG_2000,) in found[CT]
    assert (JPEG_2000,) not in found[SR], "a report has no pixels to compress"


@pytest.mark.parametrize(("sop_class", "video"), [(CT, False), (US_MULTI_FRAME, True), (PRIVATE, True)])
def test_video_is_offered_for_what_may_move_and_for_what_is_not_known(sop_class: str, video: bool) -> None:
    assert ((HEVC,) in offered({sop_class})[sop_class]) is video


@pytest.mark.parametrize("classes", [SEVENTY, COMMON_SOP_CLASSES, [f"1.2.752.1.{n}" for n in range(300)]])
def test_there_are_never_more_than_an_association_has(classes: list[str]) -> None:
    contexts = proposal(*classes).contexts()
    assert not proposal(*classes).fits_one_association
    assert len(contexts) == MAX_STORAGE_CONTEXTS == MAX_CONTEXTS - 1
    propose_contexts([("1.2", ["1.2"]), *contexts])
    each = Counter(abstract for abstract, _ in contexts)
    assert len(each) == min(len(classes), MAX_STORAGE_CONTEXTS)


@pytest.mark.parametrize("classes", [5, 9, 40, 63])
def test_where_syntaxes_share_contexts_none_is_left_out_and_the_plain_ones_are_apart(classes: int) -> None:
    found = offered({f"1.2.752.1.{n}" for n in range(classes)})
    assert sum(map(len, found.values())) == MAX_STORAGE_CONTEXTS
    everything = {one for part in offered({PRIVATE})[PRIVATE] for one in part}
    for contexts in found.values():
        assert {one for part in contexts for one in part} == everything
        assert sum(map(len, contexts)) == len(everything)
        assert all(contexts)
        compressed = next(part for part in contexts if JPEG_2000 in part)
        assert not {EXPLICIT, IMPLICIT} & set(compressed), "an acceptor that prefers these never takes it"


def test_the_common_classes_are_for_storage() -> None:
    assert all(is_storage(uid) for uid in COMMON_SOP_CLASSES)
    assert CT in COMMON_SOP_CLASSES


def test_what_an_archive_lists_is_used_as_far_as_it_can_be() -> None:
    assert select_sop_classes([CT, SR, PRIVATE]) == {CT, SR, PRIVATE}
    # Not UIDs, and not of storage.
    assert select_sop_classes([CT, "no uid", "1.2.840.10008.1.1"]) == {CT}
    assert select_sop_classes([CT, ""]) == {CT} | COMMON_SOP_CLASSES
    assert select_sop_classes(["", "no uid"]) == COMMON_SOP_CLASSES
    # The modality stands in for a class that is not listed.
    of_ct = select_sop_classes([""], "CT")
    assert {CT, RAW} < of_ct
    assert len(of_ct) < 7
    assert select_sop_classes([CT], "MR") == {CT}
    assert select_sop_classes([""], "no modality") == COMMON_SOP_CLASSES


def test_a_deflated_dataset_is_only_offered_when_something_did_not_come() -> None:
    assert not any(DEFLATED in part for parts in offered({CT, SR, PRIVATE}).values() for part in parts)
    for uid in (CT, SR, PRIVATE):
        assert (DEFLATED,) in offered({CT, SR, PRIVATE}, is_repeat=True)[uid]


def test_every_modality_has_a_context_for_each_pair_of_class_and_syntax() -> None:
    for modality in ("CT", "MR", "US", "XA", "PT", "SR", "RTPLAN", "MG", "SM", "OT"):
        classes = select_sop_classes([""], modality)
        assert all(is_storage(uid) for uid in classes)
        assert proposal(*classes, is_repeat=True).fits_one_association, modality


def test_an_association_serves_what_it_has_contexts_for() -> None:
    assert proposal(CT, SR).includes(proposal(CT))
    assert not proposal(CT).includes(proposal(CT, SR))
    assert not proposal(CT, SR).includes(proposal(CT, is_repeat=True))
    crowded = proposal(*SEVENTY)
    assert crowded.includes(proposal(*SEVENTY))
    assert not crowded.includes(proposal(SEVENTY[0])), "its syntaxes share contexts"


def test_series_are_grouped_so_that_each_group_fits() -> None:
    series = {f"1.{n}": proposal(uid) for n, uid in enumerate(SEVENTY)}
    groups = group_series(series)
    assert 1 < len(groups) < 20
    assert all(together.fits_one_association for _, together in groups)
    assert Counter(uid for uids, _ in groups for uid in uids) == Counter(list(series))


def test_a_series_that_does_not_fit_is_a_group_of_its_own() -> None:
    series = {"1.1": proposal(*SEVENTY), "1.2": proposal(CT)}
    assert sorted(uids for uids, _ in group_series(series)) == [["1.1"], ["1.2"]]
