"""Presentation contexts of a C-GET: as many as are needed, never more than an association has."""

from __future__ import annotations

from collections import Counter

import pytest

from dicom_quarry.archive.dimse import associations
from dicom_quarry.wire.negotiation import MAX_CONTEXTS, is_storage, propose_contexts

CT, SR, PRIVATE = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.11", "1.2.752.24.3.7.6"
US_MULTI_FRAME = "1.2.840.10008.5.1.4.1.1.3.1"
EXPLICIT, IMPLICIT, JPEG_2000, HEVC = (f"1.2.840.10008.1.2{end}" for end in (".1", "", ".4.90", ".4.107"))
SEVENTY = sorted(associations.COMMON_SOP_CLASSES)[:70]


def offered(classes: set[str]) -> dict[str, list[tuple[str, ...]]]:
    found: dict[str, list[tuple[str, ...]]] = {}
    for abstract, transfer in associations.build_contexts(classes):
        found.setdefault(abstract, []).append(tuple(transfer))
    return found


def test_every_pair_of_class_and_syntax_is_a_context_while_there_is_room() -> None:
    found = offered({CT, SR})
    assert associations.fits_one_association({CT, SR})
    assert all(len(transfer) == 1 for contexts in found.values() for transfer in contexts)
    assert found[CT][0] == (EXPLICIT,)
    assert (JPEG_2000,) in found[CT]
    assert (JPEG_2000,) not in found[SR], "a report has no pixels to compress"


@pytest.mark.parametrize(("sop_class", "video"), [(CT, False), (US_MULTI_FRAME, True), (PRIVATE, True)])
def test_video_is_offered_for_what_may_move_and_for_what_is_not_known(sop_class: str, video: bool) -> None:
    assert ((HEVC,) in offered({sop_class})[sop_class]) is video


@pytest.mark.parametrize(
    "classes", [SEVENTY, associations.COMMON_SOP_CLASSES, [f"1.2.752.1.{n}" for n in range(300)]]
)
def test_there_are_never_more_than_an_association_has(classes: list[str]) -> None:
    contexts = associations.build_contexts(classes)
    assert not associations.fits_one_association(classes)
    assert len(contexts) == associations.MAX_STORAGE_CONTEXTS == MAX_CONTEXTS - 1
    propose_contexts([("1.2", ["1.2"]), *contexts])
    each = Counter(abstract for abstract, _ in contexts)
    assert len(each) == min(len(classes), associations.MAX_STORAGE_CONTEXTS)


@pytest.mark.parametrize("classes", [5, 9, 40, 63])
def test_where_syntaxes_share_contexts_none_is_left_out_and_the_plain_ones_are_apart(classes: int) -> None:
    found = offered({f"1.2.752.1.{n}" for n in range(classes)})
    assert sum(map(len, found.values())) == associations.MAX_STORAGE_CONTEXTS
    everything = {one for part in offered({PRIVATE})[PRIVATE] for one in part}
    for contexts in found.values():
        assert {one for part in contexts for one in part} == everything
        assert sum(map(len, contexts)) == len(everything)
        assert all(contexts)
        compressed = next(part for part in contexts if JPEG_2000 in part)
        assert not {EXPLICIT, IMPLICIT} & set(compressed), "an acceptor that prefers these never takes it"


def test_the_common_classes_are_for_storage() -> None:
    assert all(is_storage(uid) for uid in associations.COMMON_SOP_CLASSES)
    assert CT in associations.COMMON_SOP_CLASSES


def test_what_an_archive_lists_is_used_as_far_as_it_can_be() -> None:
    assert associations.select_sop_classes([CT, SR, PRIVATE]) == {CT, SR, PRIVATE}
    # Not UIDs, and not of storage.
    assert associations.select_sop_classes([CT, "no uid", "1.2.840.10008.1.1"]) == {CT}
    assert associations.select_sop_classes([CT, ""]) == {CT} | associations.COMMON_SOP_CLASSES
    assert associations.select_sop_classes(["", "no uid"]) == associations.COMMON_SOP_CLASSES


def test_series_are_grouped_so_that_each_group_fits() -> None:
    series = {f"1.{n}": frozenset({uid}) for n, uid in enumerate(SEVENTY)}
    groups = associations.group_series(series)
    assert 1 < len(groups) < 20
    assert all(associations.fits_one_association(frozenset().union(*group.values())) for group in groups)
    assert Counter(uid for group in groups for uid in group) == Counter(list(series))


def test_a_series_that_does_not_fit_is_a_group_of_its_own() -> None:
    series = {"1.1": frozenset(SEVENTY), "1.2": frozenset({CT})}
    assert sorted(map(list, associations.group_series(series))) == [["1.1"], ["1.2"]]
