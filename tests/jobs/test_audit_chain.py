"""The chain over audit.csv: every kind of change is found and named, at any length of the log."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicom_quarry.jobs.audit_chain import AuditChain, ChainComparison, compute_chain
from dicom_quarry.jobs.audit_chain import compare_chain as compare_with
from dicom_quarry.jobs.audit_log import AuditFile, read_audit_file

HEADER = "time,event,details\r\n"


def write(path: Path, lines: list[str]) -> Path:
    path.write_text(HEADER + "".join(f"{line}\r\n" for line in lines), "utf-8", newline="")
    return path


def read_chain(path: Path) -> AuditChain:
    return compute_chain(read_audit_file(path))


def compare_chain(chain: AuditChain, path: Path) -> ChainComparison:
    return compare_with(chain, lambda: read_audit_file(path))


def log_of(number: int) -> list[str]:
    return [f'2026-11-28T20:00:00.{at:04}Z,study,"ä, {at}"' for at in range(1, number + 1)]


def differences(tmp_path: Path, number: int, changed: list[str]) -> ChainComparison:
    chain = read_chain(write(tmp_path / "before.csv", log_of(number)))
    return compare_chain(chain, write(tmp_path / "after.csv", changed))


def test_the_chain_is_that_of_its_description(tmp_path: Path) -> None:
    path = tmp_path / "audit.csv"
    path.write_bytes(
        b'time,event,details\r\nT1,started,"a ""b""\xc3\xa4"\r\nT2,ended,\r\n'
        b'\r\ncut\xff,"off\r\nT3,released\r\n'
    )
    forms = [
        r'{"details":"a \"b\"ä","event":"started","time":"T1"}',
        '{"event":"ended","time":"T2"}',
        r'{"line":"cut\\xff,\"off"}',
        '{"line":"T3,released"}',
    ]
    values = [""]
    for form in forms:
        values.append(hashlib.sha256((values[-1] + form).encode()).hexdigest())
    assert read_chain(path) == AuditChain(4, values[-1], 1, tuple(values[1:]), "T1", "T2")


def test_a_log_that_is_written_is_read(tmp_path: Path) -> None:
    assert read_chain(tmp_path / "audit.csv") == AuditChain(0, "")
    with AuditFile(tmp_path / "audit.csv") as log:
        log.write("started", details="two\r\nlines, =1+1")
        chain = read_chain(tmp_path / "audit.csv")
        log.write("ended")
    assert (chain.records, chain.started[-1], chain.ended) == (1, "Z", "")
    assert compare_chain(chain, tmp_path / "audit.csv") == ChainComparison(1)
    assert compare_chain(read_chain(tmp_path / "audit.csv"), tmp_path / "audit.csv") == ChainComparison(0)


CHANGES = {
    "nothing": (lambda log: log, 0, ()),
    "later": (lambda log: [*log, "T,released,"], 1, ()),
    "cell": (lambda log: [*log[:2], "T,study,x", *log[3:]], 0, ("record 3 was changed",)),
    "first removed": (lambda log: log[1:], 0, ("record 1 was removed",)),
    "one removed": (lambda log: log[:4] + log[5:], 0, ("record 5 was removed",)),
    "some removed": (lambda log: log[:4] + log[7:], 0, ("records 5 to 7 were removed",)),
    "last removed": (lambda log: log[:-2], 0, ("records 9 to 10 were removed",)),
    "all removed": (lambda log: log[:0], 0, ("records 1 to 10 were removed",)),
    "added": (lambda log: [*log[:4], "T,study,x", *log[4:]], 0, ("1 record added behind record 4",)),
    "added first": (lambda log: ["T,study,x", *log], 0, ("1 record added in front of record 1",)),
    "moved": (lambda log: [*log[:1], *log[2:8], log[1], *log[8:]], 0, ("record 2 is in another place",)),
    "last changed": (lambda log: [*log[:9], "T,x,", "T,released,"], 1, ("record 10 was changed",)),
    "column": (lambda log: ["T,study,x,y", *log[1:]], 0, ("record 1 was changed",)),
    "two": (
        lambda log: [log[0], "T,x,", *log[2:5], *log[6:]],
        0,
        ("record 2 was changed", "record 6 was removed"),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_named(tmp_path: Path, name: str) -> None:
    change, later, named = CHANGES[name]
    assert differences(tmp_path, 10, change(log_of(10))) == ChainComparison(later, named)


def test_two_records_in_the_other_order(tmp_path: Path) -> None:
    log = log_of(10)
    found = differences(tmp_path, 10, [*log[:3], log[4], log[3], *log[5:]])
    assert found in (
        ChainComparison(0, ("record 4 is in another place",)),
        ChainComparison(0, ("record 5 is in another place",)),
    )


def test_a_long_log_has_fewer_values_and_the_place_of_a_change_is_a_range(tmp_path: Path) -> None:
    log = log_of(2500)
    chain = read_chain(write(tmp_path / "before.csv", log))
    assert (chain.every, len(chain.values)) == (4, 625)
    after = tmp_path / "after.csv"
    assert compare_chain(chain, write(after, log)) == ChainComparison(0)
    assert compare_chain(chain, write(after, log[:1000] + log[1001:])) == ChainComparison(
        0, ("records 1001 to 1004: 1 record of them removed",)
    )
    swapped = [*log[:9], log[10], log[9], *log[11:]]
    assert compare_chain(chain, write(after, swapped)) == ChainComparison(
        0, ("records 9 to 12 were changed or reordered",)
    )
    assert compare_chain(chain, write(after, log_of(2499))).differences == (
        "records 2497 to 2500: 1 record of them removed",
    )


def test_a_chain_that_was_made_up_costs_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "audit.csv", log_of(3))
    made_up = AuditChain(10**15, "0" * 64, 10**15, ("1" * 64,))
    assert compare_chain(made_up, path).differences


def test_another_log_is_not_searched_line_by_line(tmp_path: Path) -> None:
    other = [line.replace("study", "x") for line in log_of(900)]
    assert differences(tmp_path, 900, other) == ChainComparison(0, ("records 1 to 900 were changed",))
