"""Instances come from the archive; from elsewhere only once a person has said so."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_operations import MoveOperation, Tally
from dicom_quarry.demo.store_scu import StoreSCU
from dicom_quarry.demo.synthetic_studies import DemoInstance, generate_studies
from tests.e2e.command import Running, check_folder, files, outcomes, until
from tests.e2e.job_runs import Job, accessions
from tests.e2e.paused_archive import GatedArchive
from tests.receiver.helpers import CT, EXPLICIT, RawPeer, echo
from tests.scripted import Fault, ScriptedArchive

STUDIES = generate_studies(1, seed=9, images=4)


ELSEWHERE = {instance.sop_uid for instance in list(STUDIES[0].instances())[:2]}


class FromElsewhere(Fault):
    """A cluster: some instances are sent by another node, at 127.0.0.2."""

    def deliver(
        self,
        archive: ScriptedArchive,
        move: MoveOperation,
        address: tuple[str, int],
        instances: Sequence[DemoInstance],
    ) -> bool:
        tally = Tally(len(instances))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("dicom_quarry.demo.store_scu.socket.create_connection", connect_from_elsewhere)
            other = [one for one in instances if one.sop_uid in ELSEWHERE]
            with StoreSCU(address, move.destination, "NODE2", other or instances) as store:
                archive.send(move, store, other, tally)
        mine = [one for one in instances if one.sop_uid not in ELSEWHERE]
        with StoreSCU(address, move.destination, archive.title, mine or instances) as store:
            archive.send(move, store, mine, tally)
        move.respond(tally.final_status, tally, failed_uids=tally.failed_uids)
        return True


def connect_from_elsewhere(address: tuple[str, int], timeout: float, **_: object) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(timeout)
    sock.bind(("127.0.0.2", 0))
    sock.connect(address)
    return sock


@pytest.fixture
def archive() -> Iterator[ScriptedArchive]:
    with ScriptedArchive(STUDIES, [FromElsewhere()]) as server:
        yield server


def told(work: Path, command: list[object]) -> str:
    """The line about the other node, from a job that is stopped then; its exit code is 4."""
    with Running(work / "out.txt", *command) as running:
        until(running, "the refusal", lambda: "127.0.0.2" in running.output)
        until(running, "the others", lambda: len(files(work / "out")) == 2)
        running.interrupt()
        running.interrupt()
        assert running.wait() == 4
        # A study that lacks its instances for that reason repeats it.
        line, *_ = [one for one in running.output.splitlines() if "127.0.0.2" in one]
    return line


def test_another_node_of_the_archive(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(STUDIES))
    line = 'senders = ["127.0.0.2"]'
    said = told(work, job.command())
    assert said.endswith(
        f"its address 127.0.0.2 is not in the list of allowed senders; if it belongs to the archive, "
        f"add  {line}  to [archive.main] in quarry.toml"
    )
    # The other node, and the archive itself all the same.
    job.configure(line)
    job.out = work / "again"
    assert job.run().code == 0
    assert outcomes(job.out) == [("complete", "all_listed_stored")]
    assert len(files(job.out)) == 4
    check_folder(job.out)


def test_what_to_write_where_no_table_is(archive: ScriptedArchive, work: Path) -> None:
    job = Job(work, archive, accessions(STUDIES))
    job.toml.unlink()
    said = told(work, [job.archive if word == "main" else word for word in job.command()])
    assert f'address = "{job.archive}"  too, and --from SCRIPTED' in said


def test_this_computer_may_always_say_hello(work: Path) -> None:
    with GatedArchive(STUDIES) as archive:
        archive.hold_after = 1
        job = Job(work, archive, accessions(STUDIES))
        with Running(work / "out.txt", *job.command()) as running:
            until(running, "the archive to hold", archive.held.is_set)
            assert echo(job.port)
            with RawPeer(job.port, "127.0.0.3") as peer:
                answer = peer.associate()
                assert [result.result for result in answer.results] == [0, 3], "C-ECHO alone"
            with RawPeer(job.port, "127.0.0.3") as peer:
                peer.associate((CT, [EXPLICIT]))
            archive.open()
            assert running.wait() == 0
            assert running.output.count("127.0.0.3 was refused") == 1
