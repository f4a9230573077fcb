"""Reasons from an archive: ten different ones are shown, the others counted."""

from __future__ import annotations

from dicom_quarry.archive.reasons import Reasons


def test_ten_reasons_and_a_count() -> None:
    reasons = Reasons()
    assert not reasons and str(reasons) == ""
    for number in [*range(10), *range(10)]:
        reasons.add(f"reason {number}")
    assert str(reasons) == "; ".join(f"reason {number}" for number in range(10))
    for number in range(10, 5000):
        reasons.add(f"reason {number}" + "x" * 5000)
    assert str(reasons).endswith("reason 9; and 4,990 others")


def test_a_reason_is_cut() -> None:
    reasons = Reasons()
    reasons.add("x" * 100_000)
    assert len(str(reasons)) == 1000
