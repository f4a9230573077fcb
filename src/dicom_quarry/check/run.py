"""All steps of a check, in order, each told as soon as it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from dicom_quarry.check.asking import Inquiry
from dicom_quarry.check.caps import probe
from dicom_quarry.check.here import here
from dicom_quarry.check.moving import Wanted, move
from dicom_quarry.check.road import road
from dicom_quarry.check.steps import Bench, Mark, Step
from dicom_quarry.check.verdict import judge, syntaxes
from dicom_quarry.check.web import web_steps
from dicom_quarry.errors import ArchiveError, StartError
from dicom_quarry.window import Hours


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
    if not bench.learned.port_is_free:
        yield Step("C-MOVE", Mark.NOTE, "not tried, since our port is not free")
        return
    listed = frozenset(ref.sop_uid for ref in listing.instances) if listing else frozenset()
    try:
        trials = move(bench, Wanted(model, study, listed))
    except (ArchiveError, StartError) as error:
        yield Step("C-MOVE", Mark.BAD, str(error))
        return
    yield judge(bench, trials)
    if trials[-1].arrived:
        yield syntaxes(trials[-1])
