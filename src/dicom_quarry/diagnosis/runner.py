"""All steps of a check, in order, each told as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicom_quarry.config.time_window import Hours
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.diagnosis.dicomweb_checks import web_steps
from dicom_quarry.diagnosis.local_checks import here
from dicom_quarry.diagnosis.network_checks import road
from dicom_quarry.diagnosis.query_checks import Inquiry
from dicom_quarry.diagnosis.result_cap import probe
from dicom_quarry.diagnosis.retrieval_check import Wanted, get, move
from dicom_quarry.diagnosis.retrieval_diagnosis import Trial, judge, judge_get, syntaxes
from dicom_quarry.errors import ArchiveError, StartError

#: What to do where C-MOVE fails and C-GET does not.
_WITHOUT_RECEIVER = (
    'or leave it to C-GET, as a job does: with  retrieve = "get"  in quarry.toml it needs no receiver, '
    "no entry there"
)


def steps(bench: Bench, hours: Hours, *, accession: str = "", cap: bool = False) -> Iterator[Step]:
    """The road and this computer; with an accession the archive's answers, too. Raises ConfigError."""
    if bench.profile.address is None:
        yield from web_steps(bench, hours, datetime.now(UTC), accession)
        if cap:
            yield Step("result cap", Mark.NOTE, "not tried over DICOMweb, where answers come in pages")
        return
    reached = True
    for step in road(bench):
        reached = reached and step.mark is not Mark.BAD
        yield step
    yield from here(bench, hours, datetime.now(UTC))
    if reached and accession:
        inquiry = Inquiry(bench, accession)
        yield from (_anonymous(step, inquiry) for step in _study(bench, inquiry))
    if reached and cap:
        yield probe(bench, datetime.now(UTC).date())


def _anonymous(step: Step, inquiry: Inquiry) -> Step:
    """Without what an archive repeats of identifiers in its error comments: the output may go to a file."""
    said = step.said
    for identifier in inquiry.identifiers:
        said = said.replace(identifier, "…")
    return replace(step, said=said)


def _study(bench: Bench, inquiry: Inquiry) -> Iterator[Step]:
    yield from inquiry.steps()
    model, study, listing = bench.learned.model, inquiry.study, inquiry.listing
    if model is None or study is None:
        return
    wanted = Wanted(model, study, listing.instances if listing else ())
    needed = bench.profile.retrieve == "get"
    moved = None if needed else _moved(bench, wanted)
    got = _got(bench, wanted, needed=needed) if bench.learned.gets[model] else None
    if moved:
        yield moved.step
    if got and moved and moved.step.mark is Mark.BAD and got.step.mark is Mark.GOOD:
        bench.learned.only_get = True
        yield replace(got.step, remedy=_WITHOUT_RECEIVER)
    elif got:
        yield got.step
    arrived = [one.trial for one in (moved, got) if one and one.trial and one.trial.arrived]
    if arrived:
        yield syntaxes(arrived[0])


@dataclass(frozen=True, slots=True)
class _Tried:
    step: Step
    trial: Trial | None = None


def _moved(bench: Bench, wanted: Wanted) -> _Tried:
    if not bench.learned.port_is_free:
        return _Tried(Step("C-MOVE", Mark.NOTE, "not tried, since our port is not free"))
    try:
        trials = move(bench, wanted)
    except (ArchiveError, StartError) as error:
        return _Tried(Step("C-MOVE", Mark.BAD, str(error)))
    return _Tried(judge(bench, trials), trials[-1])


def _got(bench: Bench, wanted: Wanted, *, needed: bool) -> _Tried:
    """Where another road is used, what fails here is only worth knowing."""
    try:
        trial = get(bench, wanted)
    except ArchiveError as error:
        return _Tried(Step("C-GET", Mark.BAD if needed else Mark.NOTE, str(error)))
    return _Tried(judge_get(trial, needed=needed), trial)
