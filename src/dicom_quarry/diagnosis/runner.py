"""All steps of a check in order; each is yielded when it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from dicom_quarry.config.time_window import Schedule
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.diagnosis.dicomweb_checks import check_dicomweb
from dicom_quarry.diagnosis.local_checks import check_local
from dicom_quarry.diagnosis.network_checks import check_network
from dicom_quarry.diagnosis.query_checks import StudyQueryCheck, probe_result_cap
from dicom_quarry.diagnosis.retrieval_check import ExpectedStudy, try_get, try_move
from dicom_quarry.diagnosis.retrieval_diagnosis import (
    RetrievalTrial,
    describe_transfer_syntaxes,
    diagnose_get,
    diagnose_move,
)
from dicom_quarry.errors import ArchiveError, StartError
from dicom_quarry.model import Transport

_USE_GET_REMEDY = (
    'C-GET works. Quarry uses it when C-MOVE fails. To use it always, put retrieve = "get" in quarry.toml'
)


def run_checks(
    context: CheckContext,
    hours: Schedule,
    *,
    accession: str = "",
    patient_id: str = "",
    probe_cap: bool = False,
) -> Iterator[CheckStep]:
    """Check network and computer, with an accession also queries and retrievals; raises ConfigError."""
    if context.profile.address is None:
        yield from check_dicomweb(context, hours, datetime.now(UTC), accession)
        if probe_cap:
            yield CheckStep("result cap", StepStatus.NOTE, "not tested: DICOMweb returns results in pages")
        return
    reached = True
    for step in check_network(context):
        reached = reached and step.status is not StepStatus.BAD
        yield step
    yield from check_local(context, hours, datetime.now(UTC))
    if reached and accession:
        query_check = StudyQueryCheck(context, accession, patient_id)
        yield from (_redact_step(step, query_check) for step in _check_study(context, query_check))
    if reached and probe_cap:
        yield probe_result_cap(context, datetime.now(UTC).date())


def _redact_step(step: CheckStep, query_check: StudyQueryCheck) -> CheckStep:
    """Remove patient identifiers that an archive repeats in error comments: the output may go to a file."""
    message = step.message
    for identifier in query_check.identifiers:
        message = message.replace(identifier, "…")
    return replace(step, message=message)


def _check_study(context: CheckContext, query_check: StudyQueryCheck) -> Iterator[CheckStep]:
    yield from query_check.run()
    model, study, listing = context.findings.model, query_check.study, query_check.listing
    if model is None or study is None:
        return
    expected = ExpectedStudy(model, study, listing.instances if listing else ())
    get_required = context.uses_get_alone
    moves = context.profile.allows(Transport.MOVE) and not get_required
    move_check = _check_move(context, expected) if moves else None
    get_check = (
        _check_get(context, expected, is_required=get_required)
        if context.profile.allows(Transport.GET) and context.findings.get_models[model]
        else None
    )
    if move_check:
        yield move_check.step
    if (
        get_check
        and move_check
        and move_check.step.status is StepStatus.BAD
        and get_check.step.status is StepStatus.GOOD
    ):
        context.findings.only_get_works = True
        yield replace(get_check.step, remedy=_USE_GET_REMEDY)
    elif get_check:
        yield get_check.step
    arrived = [one.trial for one in (move_check, get_check) if one and one.trial and one.trial.arrived]
    if arrived:
        yield describe_transfer_syntaxes(arrived[0])


@dataclass(frozen=True, slots=True)
class _RetrievalCheck:
    step: CheckStep
    trial: RetrievalTrial | None = None


def _check_move(context: CheckContext, expected: ExpectedStudy) -> _RetrievalCheck:
    if not context.findings.port_is_free:
        return _RetrievalCheck(CheckStep("C-MOVE", StepStatus.NOTE, "not tested: our port is not free"))
    try:
        trials = try_move(context, expected)
    except (ArchiveError, StartError) as error:
        return _RetrievalCheck(CheckStep("C-MOVE", StepStatus.BAD, str(error)))
    return _RetrievalCheck(diagnose_move(context, trials), trials[-1])


def _check_get(context: CheckContext, expected: ExpectedStudy, *, is_required: bool) -> _RetrievalCheck:
    """Try a C-GET; a failure is only a note where another transport is used."""
    try:
        trial = try_get(context, expected)
    except ArchiveError as error:
        return _RetrievalCheck(
            CheckStep("C-GET", StepStatus.BAD if is_required else StepStatus.NOTE, str(error))
        )
    return _RetrievalCheck(diagnose_get(trial, is_required=is_required), trial)
