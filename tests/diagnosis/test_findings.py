"""What is learned and what is made of it: caps, quarry.toml, the letter; without a network."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path, PurePosixPath

import pytest

from dicom_quarry.archive.base import RetrieveResult, StudyQueryResult, Verdict
from dicom_quarry.archive.dimse.status import describe, interpret_move
from dicom_quarry.config.archive_profile import Limits
from dicom_quarry.config.settings import load_settings
from dicom_quarry.config.time_window import Schedule, parse_schedule
from dicom_quarry.diagnosis.access_request import render_access_request
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.diagnosis.local_checks import check_clock, check_disk
from dicom_quarry.diagnosis.query_checks import MAX_RESULTS, find_result_cap
from dicom_quarry.diagnosis.retrieval_diagnosis import RetrievalTrial, diagnose_move
from dicom_quarry.diagnosis.save_profile import save_profile
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import InstanceInfo, InstanceRef, Receipt, Study, Transport

PACS = "PACS@10.1.2.3:104"
TODAY = date(2026, 3, 1)


def bench(to: Path, name: str = PACS, toml: str = "", **flags: object) -> CheckContext:
    path = to / "settings.toml"
    path.write_text(toml)
    made = CheckContext(
        load_settings(path, {"from": name, "as": "QUARRY:11112", "to": to / "not" / "yet", **flags})
    )
    made.findings.our_address = "10.7.7.7"
    return made


# -- caps


class Archive:
    """So many studies on a day, and silently no more than the cap for one question."""

    def __init__(self, per_day: dict[date, int], cap: int | None) -> None:
        self.per_day, self.cap = per_day, cap
        self.asked = 0

    def __call__(self, start: date, end: date) -> StudyQueryResult:
        self.asked += 1
        days = [day for day, count in self.per_day.items() if start <= day <= end for _ in range(count)]
        return StudyQueryResult(tuple(Study(f"1.{n}") for n in range(len(days)))[: self.cap])


def evenly(days: int, count: int, until: date = TODAY) -> dict[date, int]:
    return {until - timedelta(days=n): count for n in range(days)}


@pytest.mark.parametrize(
    ("per_day", "cap", "expected"),
    [
        (evenly(1000, 3), 500, 500),
        (evenly(1000, 3), None, None),
        (evenly(1000, 3), 2, 2),
        (evenly(200, 1, TODAY - timedelta(days=3000)), 50, 50),  # an archive of old studies
        (evenly(50, 1, TODAY - timedelta(days=700)), 50, None),  # as many as the cap, and no more
        ({}, None, None),
        ({TODAY: 7}, 5, None),  # a single day has no parts
    ],
)
def test_caps(per_day: dict[date, int], cap: int | None, expected: int | None) -> None:
    archive = Archive(per_day, cap)
    assert find_result_cap(archive, TODAY)[0] == expected
    assert archive.asked < 40


def test_a_cap_that_is_told() -> None:
    answer = StudyQueryResult((Study("1.1"), Study("1.2")), complete=False, incomplete_reason="FE00")
    assert find_result_cap(lambda *_: answer, TODAY) == (2, 2)


def test_answers_that_cannot_be_used_are_no_cap() -> None:
    result = StudyQueryResult((Study("1.1"),), complete=False, incomplete_reason="no UID", splittable=False)
    none = StudyQueryResult(())
    assert find_result_cap(lambda _, last: result if last == TODAY else none, TODAY) == (None, 1)


def test_what_we_stop_ourselves_is_no_cap() -> None:
    answer = StudyQueryResult(
        tuple(Study(f"1.{n}") for n in range(MAX_RESULTS)), complete=False, incomplete_reason="more"
    )
    assert find_result_cap(lambda *_: answer, TODAY) == (None, MAX_RESULTS)


# -- the answer to a C-MOVE, where no archive of these tests gives it


@pytest.mark.parametrize(
    ("answered", "said", "remedy"),
    [
        (RetrieveResult(Verdict.RETRY, 0xC502), "could not send to QUARRY (C502)", "firewall"),
        (RetrieveResult(Verdict.WARNING, 0xB000, 0, 9), "could not send to QUARRY (B000)", "firewall"),
        (RetrieveResult(Verdict.RETRY, 0xA702), "could not send to QUARRY (A702)", "firewall"),
        (RetrieveResult(Verdict.RETRY, 0xC001, 0, 0), "does not know QUARRY", "10.7.7.7, port 11112"),
        (RetrieveResult(Verdict.RETRY, 0xA700, comment="out of resources"), "out of resources", ""),
    ],
)
def test_verdicts(tmp_path: Path, answered: RetrieveResult, said: str, remedy: str) -> None:
    step = diagnose_move(bench(tmp_path), [RetrievalTrial(answered, 9)])
    assert step.status is StepStatus.BAD
    assert said in step.message
    assert remedy in step.remedy


def test_the_words_of_the_archive_are_marked_as_such(tmp_path: Path) -> None:
    meaning = interpret_move(0xC001, completed=0, failed=0)
    result = RetrieveResult(
        meaning.verdict, 0xC001, 0, 0, comment=describe(meaning, "Unknown AE", [0x00080018])
    )
    step = diagnose_move(bench(tmp_path), [RetrievalTrial(result, 9)])
    assert step.message.endswith('. Message from the archive: "Unknown AE"')
    assert "reports: " not in step.message


def test_arrivals_show_that_the_archive_knows_us(tmp_path: Path) -> None:
    arrival = InstanceInfo("1.2", "1.2.3", "1.2.840.10008.1.2.1")
    receipt = Receipt(InstanceRef("1", "2", "3"), "1.2.840.10008.1.2.1", PurePosixPath("a"), 1, b"")
    trial = RetrievalTrial(RetrieveResult(Verdict.RETRY, 0xC000, comment="Broken."), 9, ((arrival, receipt),))
    step = diagnose_move(bench(tmp_path), [trial])
    assert step.message == "1 of 9 instances arrived, so the archive knows QUARRY. Broken."
    assert "register" not in step.remedy


# -- this computer


def test_clock() -> None:
    now = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
    assert check_clock(Schedule(), now, synchronised=True) == CheckStep(
        "clock", StepStatus.GOOD, "2026-03-02 12:00 UTC"
    )
    assert check_clock(Schedule(), now, synchronised=False).status is StepStatus.NOTE
    assert check_clock(Schedule(), now.replace(year=1970), synchronised=True).status is StepStatus.BAD
    hours = parse_schedule("Mon-Fri 08:00-18:00", UTC)
    assert "Mon 12:00, open until Mon 18:00" in check_clock(hours, now, synchronised=True).message


def test_disk(tmp_path: Path) -> None:
    assert check_disk(bench(tmp_path, toml="keep-free = 0")).status is StepStatus.GOOD
    assert "free some space" in check_disk(bench(tmp_path, toml="keep-free = 1e9")).remedy


# -- quarry.toml

MINE = """\
# mine
to = "out"   # here

[archive.main]
address = "PACS@10.1.2.3:104"  # since March
result_cap = 500
window = "19:00-07:00"

[tls]
hostname = false
"""


def test_saved_beside_what_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "quarry.toml"
    path.write_text(MINE)
    path.chmod(0o640)
    one = bench(tmp_path, "main", MINE)
    one.findings.model, one.findings.result_cap = "patient", 200
    one.findings.senders = ["10.1.2.9"]
    assert save_profile(path, one) == [
        'from = "main"',
        'as = "QUARRY:11112"',
        '[archive.main] model = "patient"',
        "[archive.main] result_cap = 200 (it was 500)".replace("result_cap", "result-cap"),
        '[archive.main] senders = ["10.1.2.9"]',
    ]
    text = path.read_text()
    for line in MINE.splitlines():
        assert line in text or line == "result_cap = 500"
    assert path.stat().st_mode & 0o777 == 0o640
    profile = load_settings(path, {}).archives[0]
    assert (profile.model, profile.result_cap, profile.window) == ("patient", 200, "19:00-07:00")
    assert [str(network) for network in profile.senders] == ["10.1.2.9/32"]
    assert save_profile(path, one) == []
    assert path.read_text() == text


def test_saved_into_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "quarry.toml"
    assert save_profile(path, bench(tmp_path)) == [
        'from = "PACS"',
        'as = "QUARRY:11112"',
        f'[archive.PACS] address = "{PACS}"',
    ]
    assert str(load_settings(path, {"to": "out"}).archives[0].address) == PACS


def test_a_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "quarry.toml"
    path.write_text("to = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        save_profile(path, bench(tmp_path))
    assert path.read_text() == "to = "


# -- the letter


def test_letter(tmp_path: Path) -> None:
    toml = f'[archive.main]\naddress = "{PACS}"\nwindow = "19:00-07:00"\nparallel = 4\n'
    one = bench(tmp_path, "main", toml, parallel=3)
    site = Limits(parallel=2, studies_per_hour=60)
    found = [
        CheckStep("port", StepStatus.BAD, "nothing listens", "open it"),
        CheckStep("disk", StepStatus.GOOD, "room"),
    ]
    text = render_access_request(one, [one.profile, site], "research-7", found)
    for expected in (
        "| archive | PACS | 10.1.2.3 | 104 |",
        "| Quarry, this computer (research-7) | QUARRY | 10.7.7.7 | 11112 |",
        "| 10.7.7.7 | 10.1.2.3 | 104 | queries and requests |",
        "| 10.1.2.3 | 10.7.7.7 | 11112 | the images (C-STORE) |",
        "| hours | 19:00-07:00; a study in transfer at the end is finished |",
        "| studies at once | 2 |",
        "| associations at once | 4: 2 for queries, 2 for retrievals |",
        "fetches the studies of an approved list\nfrom the archive, 2 at a time",
        "for C-ECHO, C-FIND, C-MOVE and C-GET (Query/Retrieve, Study Root model)",
        "C-FIND with a key in every query, never a wildcard.",
        "| studies an hour | 60 |",
        "contact: [name, telephone, e-mail]",
        "quarry stop --all",
        "- port: nothing listens. To do: open it",
    ):
        assert expected in text, expected
    assert "room" not in text


def test_letter_without_findings(tmp_path: Path) -> None:
    text = render_access_request(bench(tmp_path), [Limits()], "research-7", [])
    assert "found" not in text
    assert "| hours | any: please name the hours if you want a limit |" in text


def letter(tmp_path: Path, toml: str, name: str = "main", *site: Limits, **flags: object) -> str:
    one = bench(tmp_path, name, toml, **flags)
    return render_access_request(one, [one.profile, *site], "research-7", [])


def test_the_letter_for_c_get_needs_no_destination_and_no_port(tmp_path: Path) -> None:
    text = letter(tmp_path, f'[archive.main]\naddress = "{PACS}"\nretrieve = "get"\nmodel = "patient"\n')
    assert "for C-ECHO, C-FIND and C-GET (Query/Retrieve, Patient Root model)" in text
    assert "**No C-MOVE destination**" in text
    assert "It opens no port" in text
    assert "| QUARRY | 10.7.7.7 | none is opened |" in text
    for absent in ("11112", "Register", "C-STORE", "C-MOVE of", "also sends from"):
        assert absent not in text, absent


def test_the_letter_of_a_site_without_c_get_does_not_request_it(tmp_path: Path) -> None:
    one = bench(tmp_path, "main", f'[archive.main]\naddress = "{PACS}"\n')
    moves = one.profile.restricted_to(frozenset({Transport.MOVE}))
    settings = one.settings.model_copy(update={"archives": (moves,)})
    text = render_access_request(replace(one, settings=settings), [moves], "research-7", [])
    assert "C-GET" not in text
    assert "for C-ECHO, C-FIND and C-MOVE (" in text


@pytest.mark.parametrize(
    ("settings", "expected", "absent"),
    [
        ("allow-wildcards = true", "**wildcards are allowed** (`allow-wildcards`)", "never a wildcard"),
        (
            'where = ["StudyDescription=*CHEST*", "Modality=CT"]',
            "never a wildcard, but in the condition `StudyDescription=*CHEST*`.",
            "Modality=CT",
        ),
        ("whole-patients = true", "All studies of a patient, for a row with the patient alone", "Never all"),
        ("diagnosis = false", "Never all studies of a patient", "For a row without a match"),
    ],
)
def test_the_letter_follows_the_settings(tmp_path: Path, settings: str, expected: str, absent: str) -> None:
    text = letter(tmp_path, f'{settings}\n[archive.main]\naddress = "{PACS}"\n')
    assert expected in text
    assert absent not in text


def test_the_letter_names_both_windows_and_the_end_of_transfers(tmp_path: Path) -> None:
    toml = f'[archive.main]\naddress = "{PACS}"\nwindow = "19:00-07:00"\nafter-window = "2h"\n'
    site = Limits(window="Sat-Sun 00:00-24:00", time_zone="America/New_York", after_window="30m")
    text = letter(tmp_path, toml, "main", site)
    assert (
        "| hours | 19:00-07:00 and within Sat-Sun 00:00-24:00 (America/New_York); a study in transfer at the "
        "end is cancelled 30m later |"
    ) in text


def test_the_letter_for_web_services(tmp_path: Path) -> None:
    text = letter(tmp_path, "", "https://pacs.example/dicom-web")
    assert "from 10.7.7.7 to https://pacs.example/dicom-web, for searches (QIDO-RS) and images" in text
    assert "| 10.7.7.7 | pacs.example | 443 |" in text
    for absent in ("C-FIND", "C-MOVE", "AE title", "destination", "association", "C-CANCEL", "11112"):
        assert absent not in text, absent
