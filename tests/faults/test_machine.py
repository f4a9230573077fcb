"""Ledger and policy over a simulated archive, with crashes between any two steps.

Nothing acknowledged is lost, nothing is complete that is not whole, what is complete is not retrieved again,
and in the end everything ends.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dicom_quarry.archive.base import Verdict
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import codes_of
from tests.faults.short_delays import hasten
from tests.faults.simulated_job import Mood, World
from tests.ledger.helpers import ref

MOODS = st.builds(
    Mood,
    each=st.integers(0, 3),
    verdict=st.sampled_from(
        [
            Verdict.SUCCESS,
            Verdict.WARNING,
            Verdict.RETRY,
            Verdict.LOST,
            Verdict.CANCELLED,
            Verdict.UNSUPPORTED,
        ]
    ),
    claims=st.booleans(),
)
#: Rounds and lists of a task, at most, from one retry to the next: far fewer than a loop would make.
BOUND = 60


class Job(RuleBasedStateMachine):
    """A job that lives through moods, crashes and late arrivals."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self._undo = pytest.MonkeyPatch()
        hasten(self._undo.setattr)
        self._undo.setattr("dicom_quarry.scheduling.circuit_breaker.backoff", lambda *_, **__: 0.0)
        self._undo.setattr("dicom_quarry.extraction.retrieval_round._NOTHING_SENT_WAIT", 0.001)

    @initialize(studies=st.integers(1, 3))
    def begin(self, studies: int) -> None:
        self.world = World(Path(self._folder.name), studies)

    @rule(moods=st.lists(MOODS, max_size=6), effects=st.integers(0, 60))
    def live_and_crash(self, moods: list[Mood], effects: int) -> None:
        self._run(moods, effects)

    @rule(moods=st.lists(MOODS, max_size=12))
    def live(self, moods: list[Mood]) -> None:
        assert self._run(moods, None)
        assert all(view.outcome.status is not OutcomeStatus.PENDING for view in self.world.views())

    @rule(fails=st.integers(1, 4))
    def lists_fail(self, fails: int) -> None:
        self.world.listing_fails = fails

    @rule(chosen=st.integers(0, 2), number=st.integers(4, 6))
    def the_study_grows(self, chosen: int, number: int) -> None:
        uid = f"1.2.{chosen % len(self.world.holds)}"
        one = ref(uid, number)
        if one not in self.world.holds[uid]:
            self.world.holds[uid].append(one)

    @rule(chosen=st.integers(0, 2), number=st.integers(0, 5))
    def an_instance_comes_late(self, chosen: int, number: int) -> None:
        held = self.world.holds[f"1.2.{chosen % len(self.world.holds)}"]
        self.world.life.arrive(held[number % len(held)])

    @rule()
    def retry(self) -> None:
        for view in self.world.views():
            if view.outcome.status not in (OutcomeStatus.COMPLETE, OutcomeStatus.PENDING):
                self.world.proved.pop(view.study.study_uid, None)
        self.world.life.ledger.retry(codes_of(set(OutcomeStatus) - {OutcomeStatus.COMPLETE}))

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def nothing_is_lost_and_complete_is_whole(self) -> None:
        world = self.world
        assert world.acknowledged <= world.disk.keys()
        for view in world.views():
            uid = view.study.study_uid
            if view.outcome.status is not OutcomeStatus.PENDING:
                came = {one for one in world.acknowledged if one.startswith(f"{uid}.")}
                assert came <= world.recorded(uid), "acknowledged, and not accounted for"
            if view.outcome.status is OutcomeStatus.COMPLETE:
                recorded = world.recorded(uid)
                assert recorded <= world.disk.keys(), "complete, and not on the disk"
                assert len(recorded) == view.expected == view.stored
                first = world.proved.setdefault(uid, frozenset(recorded))
                assert recorded == first
            elif uid in world.proved:
                assert view.outcome.code == "unlisted_arrived", "complete no more"
                del world.proved[uid]

    def _run(self, moods: list[Mood], effects: int | None) -> bool:
        """One life; whatever was complete before is left alone, and it ends."""
        world = self.world
        complete = {v.study.study_uid for v in world.views() if v.outcome.status is OutcomeStatus.COMPLETE}
        world.moods = list(moods)
        before = len(world.moves)
        ended = world.run(effects)
        requests = world.moves[before:]
        assert not complete & {one.study_uid for one in requests}, "retrieved again though complete"
        assert len(requests) <= BOUND * len(world.holds), "a flood"
        return ended

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self._ends()
        finally:
            self._undo.undo()
            self._folder.cleanup()

    def _ends(self) -> None:
        """With an archive that behaves, every study is complete in the end."""
        world = self.world
        try:
            world.listing_fails = 0
            self._run([], None)
            self.retry()
            self._run([], None)
            for view in world.views():
                held = {one.sop_uid for one in world.holds[view.study.study_uid]}
                if view.outcome.status is OutcomeStatus.COMPLETE:
                    assert world.proved.get(view.study.study_uid, held) <= held
                else:
                    raise AssertionError(f"not complete in the end: {view.outcome}")
        finally:
            world.life.close()


Job.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
TestJob = pytest.mark.timeout(240)(Job.TestCase)


def test_the_machine_finds_a_ledger_that_concludes_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ledger that calls everything complete violates the invariant, which the test detects."""
    conclude = Ledger.conclude_task
    monkeypatch.setattr(
        Ledger,
        "conclude_task",
        lambda ledger, task_id, end, *_: conclude(
            ledger, task_id, replace(end, code="all_listed_stored", details={"instances": 3}, proved_at=1.0)
        ),
    )
    hasten(monkeypatch.setattr)
    world = World(tmp_path, 1)
    world.moods = [Mood(2, Verdict.SUCCESS, claims=True), *[Mood(0, Verdict.SUCCESS)] * 20]
    machine = Job()
    machine.world = world
    assert world.run()
    with pytest.raises(AssertionError):
        machine.nothing_is_lost_and_complete_is_whole()
    world.life.close()
