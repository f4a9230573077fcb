"""What to do next, decided from what is known. Pure: time and chance are arguments.

This is the only place that decides to try again (the one retry loop). An archive's word is never proof: a
task is complete when every listed instance is here and nothing hints at a longer list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dicom_quarry.archive.base import Ask, Verdict, classes_of
from dicom_quarry.model import InstanceRef, Level, Listing, Road, Task

#: UIDs in one IMAGE level question: long lists overrun the identifier limits of some archives.
BATCH = 100

#: Fruitless rounds of questions in a row, over restarts too, after which a task is given up.
PATIENCE = 6

#: Instance Availability of what is not on disk (PS3.3 C.4.23.1.1), and the first pause for its recall.
_SLOW = frozenset({"NEARLINE", "OFFLINE"})
_RECALL = 600.0

_CANNOT_COUNT = 0xA701

#: What is known of the SOP classes of a series whose instances are not listed.
_UNKNOWN = frozenset({""})
#: How often a notification is sent at most: it tells of a job, and must not keep that from its end.
_TELLINGS = 4

#: Rounds at IMAGE level without a single new instance before the archive's list is doubted.
_IMAGE_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Round:
    """One or more questions at one level, and what came of them."""

    level: Level
    verdict: Verdict
    gained: int
    status: int | None = None
    comment: str = ""
    road: Road = Road.MOVE


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a task in work.

    ``roads`` are those that are open, in the order in which they are tried; ``strikes`` are, by road, the
    fruitless rounds of earlier runs in a row. ``listings`` is 1, and one more for every time that the archive
    has listed again since an instance arrived. ``sent`` is the largest number of
    instances that a retrieval of the whole study counted. ``differs`` says, in words, what of an instance's
    identity is not as expected, ``excluded`` what of it is on a list of what must not be taken.
    """

    task: Task
    listing: Listing
    stored: Mapping[str, object]
    rounds: Sequence[Round] = ()
    listings: int = 1
    strikes: Mapping[Road, int] = field(default_factory=dict)
    sent: int = 0
    conflicts: int = 0
    differs: str = ""
    excluded: str = ""
    nearline_patience: float = 0.0
    roads: tuple[Road, ...] = (Road.MOVE,)

    @property
    def road(self) -> Road:
        """The road that is tried now."""
        return self.roads[0]

    def on(self, road: Road) -> Known:
        """The same, as it looks on one road alone: what was asked on another says nothing of this one."""
        return replace(self, roads=(road,), rounds=[one for one in self.rounds if one.road is road])

    @property
    def missing(self) -> list[InstanceRef]:
        """Listed, and not here."""
        return [ref for ref in self.listing.instances if ref.sop_uid not in self.stored]

    @property
    def extra(self) -> int:
        """How many are here that the archive does not list."""
        return len(self.stored) - (len(self.listing.instances) - len(self.missing))

    @property
    def counted(self) -> int:
        """The largest number of instances that an answer to a query amounts to; 0 if none had one."""
        whole_study = not self.task.selection.series
        return max(self.listing.count or 0, (self.task.study.instance_count or 0) if whole_study else 0)

    @property
    def claimed(self) -> int:
        """The largest number of instances that anything the archive said amounts to."""
        return max(self.counted, self.sent)


@dataclass(frozen=True, slots=True)
class Send:
    """Have these sent."""

    asks: tuple[Ask, ...]


@dataclass(frozen=True, slots=True)
class ListAgain:
    """Ask what the archive holds once more."""


@dataclass(frozen=True, slots=True)
class Later:
    """Leave the task alone for so many seconds, and say why."""

    seconds: float
    why: str = "the archive is busy"


@dataclass(frozen=True, slots=True)
class End:
    """The task is over; ``code`` is in the catalogue of outcomes."""

    code: str
    details: Mapping[str, object] = field(default_factory=dict)


Step = Send | ListAgain | Later | End


def next_step(known: Known, *, chance: float = 0.5) -> Step:
    """What to do next for a task; ``chance`` from 0 to 1 spreads the back-off of several jobs."""
    if known.excluded:
        return excluded(known.excluded, len(known.stored), "excluded_on_arrival")
    lacking = bool(known.missing) if known.listing.by_image else _lacks_by_count(known)
    step = _ask_more(known, chance) if lacking else _close(known)
    if known.differs and isinstance(step, End):
        # Whose images these are weighs more than how many they are.
        return End("stored_differs", {"keys": known.differs})
    return step


def excluded(keys: str, stored: int, code: str = "study_excluded") -> End:
    """The end of a task that must not be taken; what is stored of it is for a person to remove."""
    return End("excluded_but_stored" if stored else code, {"keys": keys, "stored": stored})


def _lacks_by_count(known: Known) -> bool:
    """Without a list of instances: fewer than counted; or, uncounted, no question was answered to the end.

    What an earlier run has stored says nothing here: it may have been cut short.
    """
    if len(known.stored) < known.claimed:
        return True
    answered = any(one.verdict in (Verdict.SUCCESS, Verdict.WARNING) for one in known.rounds)
    return not known.counted and not answered


def _ask_more(known: Known, chance: float) -> Step:
    """The next question on the first road that is not at its end."""
    step = _ask_on_road(known.on(known.road), chance)
    if isinstance(step, End) and known.roads[1:]:
        return _ask_more(replace(known, roads=known.roads[1:]), chance)
    return step


def _ask_on_road(known: Known, chance: float) -> Step:
    last = known.rounds[-1] if known.rounds else None
    strikes = _strikes(known)
    if last and last.verdict is Verdict.CONFIGURATION:
        return _give_up(known)
    if strikes >= PATIENCE and known.task.study.availability not in _SLOW:
        return _give_up(known)
    if last and not last.gained and last.verdict in (Verdict.RETRY, Verdict.LOST) and not _too_large(last):
        return Later(backoff(strikes, chance))
    if last and not known.stored and known.task.study.availability in _SLOW:
        return _wait_for_recall(known, strikes, chance)
    asks = _next_asks(known)
    if asks:
        return Send(_described(asks, known.listing))
    return ListAgain() if known.listings < 2 else _give_up(known)


def _too_large(last: Round) -> bool:
    """Out of resources to count the matches of a study: ask for less of it at once (PS3.4 C.4.2.1.5)."""
    return last.level is Level.STUDY and last.status == _CANNOT_COUNT


def _wait_for_recall(known: Known, strikes: int, chance: float) -> Step:
    """A study on tape comes when the archive has fetched it: one question in a long while is enough."""
    pauses = [backoff(strike, 0.5, first=_RECALL, ceiling=3600.0) for strike in range(1, strikes)]
    if sum(pauses) >= known.nearline_patience:
        return _give_up(known)
    seconds = backoff(strikes, chance, first=_RECALL, ceiling=3600.0)
    return Later(seconds, f"the study is {known.task.study.availability.lower()}, and is being fetched")


def _strikes(known: Known) -> int:
    fruitless = 0
    for one in reversed(known.rounds):
        if one.gained:
            return fruitless
        fruitless += 1
    return fruitless + known.strikes.get(known.road, 0)


def _next_asks(known: Known) -> tuple[Ask, ...]:
    """The next narrower question that was not put yet: the study, series of which nothing came, instances."""
    study = known.task.study
    levels = Counter(one.level for one in known.rounds)
    selected = sorted(known.task.selection.series)
    narrower = known.stored and (known.listing.by_image or known.listing.series_uids)
    if not known.rounds and not narrower and not selected:
        return (Ask(study.study_uid, study.patient_id, road=known.road),)
    if not levels[Level.SERIES]:
        series = _series_to_ask(known)
        if series:
            return tuple(Ask(study.study_uid, study.patient_id, (uid,), road=known.road) for uid in series)
    last = known.rounds[-1] if known.rounds else None
    if levels[Level.IMAGE] < _IMAGE_ROUNDS or (last and last.gained):
        return _image_asks(known)
    return ()


def _series_to_ask(known: Known) -> list[str]:
    """Series that are missing whole; where instances cannot be listed, every series."""
    if not known.listing.by_image:
        return list(known.listing.series_uids)
    missing = Counter(ref.series_uid for ref in known.missing)
    listed = Counter(ref.series_uid for ref in known.listing.instances)
    return [uid for uid, count in missing.items() if count == listed[uid]]


def _image_asks(known: Known) -> tuple[Ask, ...]:
    by_series: dict[str, list[str]] = {}
    for ref in known.missing:
        by_series.setdefault(ref.series_uid, []).append(ref.sop_uid)
    study = known.task.study
    return tuple(
        Ask(study.study_uid, study.patient_id, (series_uid,), tuple(uids[start : start + BATCH]), known.road)
        for series_uid, uids in by_series.items()
        for start in range(0, len(uids), BATCH)
    )


def _described(asks: Sequence[Ask], listing: Listing) -> tuple[Ask, ...]:
    """The questions with the SOP classes that are listed of what each asks for."""
    classes = classes_of(listing.instances)
    return tuple(
        replace(ask, sop_classes={uid: classes.get(uid, _UNKNOWN) for uid in ask.series_uids or classes})
        for ask in asks
    )


def _give_up(known: Known) -> End:
    last = known.rounds[-1] if known.rounds else None
    if known.stored:
        return _incomplete(known)
    status = _said(last)
    if last and last.verdict is Verdict.LOST:
        return End("gave_up_waiting", {"why": status, "attempts": _strikes(known)})
    if last and last.verdict in (Verdict.CONFIGURATION, Verdict.RETRY, Verdict.UNSUPPORTED):
        return End("archive_refused", {"status": status})
    expected = len(known.listing.instances) if known.listing.by_image else known.claimed
    return End("nothing_arrived", {"expected": expected, "status": status})


def _incomplete(known: Known) -> End:
    if known.listing.by_image:
        expected, missing = len(known.listing.instances), len(known.missing)
    else:
        expected, missing = known.claimed, known.claimed - len(known.stored)
    if missing > 0:
        return End("instances_missing", {"missing": missing, "expected": expected})
    return End("archive_cannot_list", {"stored": len(known.stored)})


def _said(last: Round | None) -> str:
    if last is None:
        return "it was asked in an earlier run"
    if last.status is None:
        return last.comment or "no final answer"
    return f"{last.status:04X}H {last.comment}".strip()


def _close(known: Known) -> Step:
    """Nothing that is listed is missing; is the list to be believed?"""
    stored = len(known.stored)
    if not known.listing.by_image:
        return End("archive_cannot_list", {"stored": stored}) if stored else End("no_instances_listed")
    doubtful = known.claimed > stored or known.extra > 0 or not known.listing.complete
    if doubtful and known.listings < 2:
        return ListAgain()
    if not known.listing.complete:
        return End("list_cut_short", {"stored": stored, "why": known.listing.why})
    if known.claimed > stored:
        if not stored:
            return End("nothing_arrived", {"expected": known.claimed, "status": "it lists none of them"})
        return End("count_disagrees", {"stored": stored, "count": known.claimed})
    if known.extra > 0:
        return End("unlisted_arrived", {"extra": known.extra})
    if known.conflicts:
        return End("content_conflict", {"conflicts": known.conflicts})
    if not stored:
        return End("no_instances_listed")
    return End("all_listed_stored", {"instances": stored})


def hand_over_again(tries: int, patience: float, chance: float) -> float | None:
    """Seconds after which a command that failed so often is run again for its study; None to give it up.

    ``patience`` is for how long, in seconds, it may go on to fail.
    """
    pauses = (backoff(number, 0.5, first=1.0) for number in range(1, tries))
    return None if sum(pauses) >= patience else backoff(tries, chance, first=1.0)


def tell_again(tries: int) -> float | None:
    """Seconds after which a notification that failed so often is sent again; None to give it up."""
    return None if tries >= _TELLINGS else backoff(tries, 0.5, first=1.0)


def backoff(strikes: int, chance: float, *, first: float = 5.0, ceiling: float = 600.0) -> float:
    """Seconds to wait after so many failures in a row: doubling, spread so that jobs do not meet."""
    return min(ceiling, first * 2.0 ** max(0, strikes - 1)) * (0.75 + chance / 2)
