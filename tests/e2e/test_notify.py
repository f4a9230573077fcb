"""Who wants to know is told, by mail and by a command; what is told names no patient, and harms no job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.model import AE
from tests.e2e.command import Running, outcomes, quarry, until
from tests.e2e.expected_outcomes import of_demo
from tests.e2e.file_systems import small_disk
from tests.e2e.job_runs import Job, accessions, script
from tests.e2e.paused_archive import GatedArchive
from tests.peers.certificates import Authority
from tests.peers.relay import Relay
from tests.peers.smtp import MailServer
from tests.scripted import ScriptedArchive

STUDIES = generate_studies(3, seed=31, images=2)
SITE = of_demo(STUDIES)


def job_with(work: Path, archive: AE | ScriptedArchive, *notify: str, more: str = "") -> Job:
    job = Job(work, archive, [*accessions(STUDIES), "NOSUCH"])
    job.toml.write_text("\n".join([more, job.toml.read_text(), "[notify]", *notify]))
    return job


def told(work: Path) -> list[dict[str, object]]:
    """What the command was told, in its order."""
    return [json.loads(line) for line in (work / "told").read_text().splitlines()]


def teller(work: Path) -> str:
    """A setting: each notice becomes a line of the file ``told``."""
    path = script(work / "tell.sh", r"tr -d '\n' >> telling; echo >> telling; cp telling told")
    return f'on-finish = "{path}"'


def mailing(server: MailServer, *more: str, to: str = '"a@x.example"', host: str = "127.0.0.1") -> str:
    return "\n".join([f"mail-to = [{to}]", f'smtp = "{host}:{server.port}"', *more])


def test_how_it_ended_without_a_patient(work: Path) -> None:
    with ScriptedArchive(STUDIES) as archive, MailServer() as server:
        where = mailing(server, 'mail-from = "q@x.example"', to='"a@x.example", "b@x.example"')
        job = job_with(work, archive, where, teller(work))
        assert job.run().code == 1
    assert sorted((mail.sender, mail.recipient) for mail in server.mails) == [
        ("q@x.example", "a@x.example"),
        ("q@x.example", "b@x.example"),
    ]
    message = server.mails[0].message
    assert message["Subject"].startswith("quarry: finished, 1 row needs your attention (out on ")
    assert message["Auto-Submitted"] == "auto-generated"
    text = message.get_content()
    for line in (
        f"folder: {job.out}",
        "4 rows: 3 complete, 1 not found",
        "  row 4",
        f"report: {job.out}/report.csv, as a page: {job.out}/report.html",
    ):
        assert line in text
    (facts,) = told(work)
    subject = "finished, 1 row needs your attention"
    assert (facts["event"], facts["summary"], facts["exit_code"]) == ("ended", subject, 1)
    assert facts["rows_by_outcome"] == {"complete": 3, "not_found": 1}
    assert facts["needs_attention"] == [
        {"outcome": "not_found", "code": "study_not_found", "rows": 1, "first_rows": [4]}
    ]
    everything = "".join(mail.text for mail in server.mails) + (work / "told").read_text()
    assert SITE.identifying()
    assert not [value for value in SITE.identifying() if value in everything]


def test_encrypted_with_a_password_from_a_file(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(work / "certificates")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    secret = work / "password"
    secret.write_text("s3cret\n")
    with ScriptedArchive(STUDIES) as archive, MailServer(identity=authority.issue("post")) as server:
        where = mailing(server, 'security = "starttls"', 'user = "me"', host="localhost")
        job = job_with(work, archive, where, f'password-file = "{secret}"')
        secret.chmod(0o644)
        refused = job.run()
        assert refused.code == 2
        assert "others can read" in refused.err and "chmod 600" in refused.err
        assert not archive.requests("find"), "said before anything is asked"
        secret.chmod(0o600)
        done = job.run()
    assert done.code == 1, done.err
    assert not done.err
    (mail,) = server.mails
    assert (mail.login, mail.encrypted) == ("/me/s3cret", True)
    kept = [path for path in (job.out / ".quarry").iterdir() if path.is_file()]
    assert kept and not [path for path in kept if b"s3cret" in path.read_bytes()]


def test_a_server_that_is_busy_is_asked_again(work: Path) -> None:
    with ScriptedArchive(STUDIES) as archive, MailServer(refuse=2) as server:
        job = job_with(work, archive, mailing(server))
        done = job.run()
    assert len(server.mails) == 1
    assert done.code == 1
    assert f"the mail to a@x.example by 127.0.0.1:{server.port} failed: (421, b'busy" in done.err
    assert "failed: (421" in (job.out / ".quarry" / "quarry.log").read_text()


def test_what_hangs_is_given_up_and_the_job_is_what_it_was(work: Path) -> None:
    hang = script(work / "hang.sh", "sleep 600")
    with ScriptedArchive(STUDIES) as archive, MailServer(silent=True) as server:
        where = mailing(server, 'limit = "1s"')
        done = job_with(work, archive, where, f'on-finish = "{hang}"').run()
        assert server.calls == 4
    assert done.code == 1
    assert "finished: 3 of 4 rows complete, 1 needs your attention" in done.out
    assert "the command of on-finish failed for the last time: it took longer than 1 s" in done.err
    assert "the mail to a@x.example by" in done.err and "failed for the last time: " in done.err


def test_a_disk_that_is_full_and_room_again(work: Path) -> None:
    cohort = generate_studies(2, seed=14, profile="ct", images=4)
    with ScriptedArchive(cohort) as archive, small_disk(work / "disk", "40m") as disk:
        job = Job(work, archive, accessions(cohort))
        job.out = disk / "out"
        notify = f'[notify]\nwaiting-after = "0s"\n{teller(work)}\n'
        job.toml.write_text(f"keep-free = 0.02\n{job.toml.read_text()}{notify}")
        others = disk / "others"
        others.write_bytes(bytes(18_000_000))
        with Running(work / "run.txt", *job.command()) as running:
            until(running, "the first notice", (work / "told").exists)
            others.unlink()
            assert running.wait() == 0, running.output
        assert outcomes(job.out) == [("complete", "all_listed_stored")] * 2
    notices = told(work)
    assert [one["event"] for one in notices] == ["waiting", "resumed", "ended"]
    assert [one.get("waiting_for") for one in notices[:2]] == ["free disk space", ""]
    assert notices[1]["summary"] == "resumed, after waiting for free disk space"
    assert notices[2]["summary"] == "finished, every row is complete"


def test_an_archive_that_is_away_and_a_job_that_is_stopped(work: Path) -> None:
    with GatedArchive(STUDIES) as archive, Relay(archive.ae) as relay:
        archive.hold_after = 3
        job = job_with(work, relay.ae, teller(work), 'waiting-after = "1s"')
        archive.destinations["QUARRY"] = ("127.0.0.1", job.port)
        with Running(work / "run.txt", *job.command()) as running:
            until(running, "the hold", archive.held.is_set)
            relay.cut()
            until(running, "the notice", (work / "told").exists)
            running.interrupt()
            assert running.wait() == 4
    assert [(one["event"], one["summary"]) for one in told(work)] == [
        ("waiting", "waiting for the archive to answer"),
        ("ended", "stopped, not finished"),
    ]


def test_what_keeps_a_job_from_its_start_is_told(work: Path) -> None:
    with ScriptedArchive(STUDIES) as archive:
        job = job_with(work, archive, teller(work))
        archive.destinations.clear()
        done = job.run("--retrieve", "move")
        assert done.code == 4, done.out + done.err
        (blocked,) = told(work)
        assert blocked["summary"] == "not finished, your action is needed"
        assert "does not know the destination (A801)" in str(blocked["problem"])
        assert "The destination was QUARRY" in str(blocked["problem"])
        job.cohort.write_text("Accession\n" + "9" * 40 + "\n")
        assert job.run().code == 2
    assert told(work)[1]["summary"] == "could not start"
    assert "99999" not in (work / "told").read_text()
    assert quarry("status", job.out).code == 4
