"""What archives do wrong with the instances themselves; the numbers are those of the field guide's list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dicom_quarry.demo.matching import Query
from dicom_quarry.demo.operations import Move, Tally
from dicom_quarry.demo.sender import NOT_SENT, StoreSCU
from dicom_quarry.demo.studies import EXPLICIT_LITTLE, IMPLICIT_LITTLE, Instance, Study, generate
from tests.scripted.archive import Answers, Fault, ScriptedArchive

#: More studies than Quarry asks for in vain.
MORE = tuple(generate(4, seed=8, images=2))


class Of(Fault):
    """Another fault, for the C-MOVEs of one study alone."""

    def __init__(self, study: Study, fault: Fault) -> None:
        super().__init__()
        self._study_uid = study.study_uid
        self._fault = fault

    def move(self, archive: ScriptedArchive, move: Move) -> bool:
        mine = self._study_uid in move.query.values("StudyInstanceUID")
        return mine and self._fault.move(archive, move)

    def deliver(
        self, archive: ScriptedArchive, move: Move, address: tuple[str, int], instances: Sequence[Instance]
    ) -> bool:
        mine = self._study_uid in move.query.values("StudyInstanceUID")
        return mine and self._fault.deliver(archive, move, address, instances)


class Never(Fault):
    """7. The first instances of a study are counted as failed whenever they are asked for (B000)."""

    def __init__(self, study: Study, count: int, *, times: int | None = None) -> None:
        super().__init__(times=times)
        self._never = {i.sop_uid for i in list(study.instances())[:count]}

    def deliver(
        self, archive: ScriptedArchive, move: Move, address: tuple[str, int], instances: Sequence[Instance]
    ) -> bool:
        good = [instance for instance in instances if instance.sop_uid not in self._never]
        if len(good) == len(instances) or not self.strikes():
            return False
        tally = Tally(len(instances))
        for instance in instances:
            if instance.sop_uid in self._never:
                tally.count(instance.sop_uid, NOT_SENT)
        if good:
            with StoreSCU(address, move.destination, archive.title, good) as store:
                archive.send(move, store, good, tally)
        move.respond(tally.verdict, tally, failed_uids=tally.failed_uids)
        return True


class Reencoded(Fault):
    """11. Every instance comes twice, the second time in the other little endian transfer syntax."""

    def choose(self, archive: ScriptedArchive, instances: Sequence[Instance]) -> Sequence[Instance]:
        return [*instances, *map(_reencoded, instances)]


class ListedTwice(Fault):
    """11. The first instance of a study is listed in every series of it."""

    def find(self, archive: ScriptedArchive, query: Query, answers: Answers) -> Answers:
        if query.level != "IMAGE":
            return answers
        return self._more(archive, query, answers)

    def _more(self, archive: ScriptedArchive, query: Query, answers: Answers) -> Answers:
        [study] = archive.catalogue.candidates(query)
        first = next(study.instances())
        answers = list(answers)  # type: ignore[assignment]
        for status, record in answers:
            if record is None and first.series.series_uid not in query.values("SeriesInstanceUID"):
                named = {"SOPInstanceUID": first.sop_uid, "SOPClassUID": first.sop_class}
                yield 0xFF00, {**dict.fromkeys(query.keys, ""), **named}
            yield status, record


def _reencoded(instance: Instance) -> Instance:
    kind = instance.series.kind
    other = EXPLICIT_LITTLE if kind.syntax == IMPLICIT_LITTLE else IMPLICIT_LITTLE
    series = replace(instance.series, kind=replace(kind, syntax=other))
    return replace(instance, series=series)
