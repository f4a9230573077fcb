"""Diagnosis of a retrieval, pure. Instances that arrived count for more than the archive's status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dicom_quarry.archive.base import CANNOT_SEND_STATUSES, RetrieveResult, Verdict
from dicom_quarry.archive.dimse.status import quote_archive_comment
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.model import InstanceInfo, Receipt
from dicom_quarry.plurals import format_count, format_part
from dicom_quarry.receiver.server import SenderRejected
from dicom_quarry.wire.data_dictionary import name_of_uid

_DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True, slots=True)
class RetrievalTrial:
    """The archive's result and the instances that arrived; our store has refused ``refused_instances``."""

    result: RetrieveResult
    expected_count: int | None
    arrived: tuple[tuple[InstanceInfo, Receipt], ...] = ()
    refused_senders: tuple[SenderRejected, ...] = ()
    refused_instances: int = 0

    @property
    def is_complete(self) -> bool:
        """True if every listed instance has arrived."""
        return bool(self.arrived) and (
            self.expected_count is None or len(self.arrived) >= self.expected_count
        )


def diagnose_move(context: CheckContext, trials: Sequence[RetrievalTrial]) -> CheckStep:
    """Return the step of the C-MOVE; further addresses of the archive are kept in the findings."""
    first, last = trials[0], trials[-1]
    if first.is_complete:
        return CheckStep("C-MOVE", StepStatus.GOOD, _describe_arrivals(first))
    if first.refused_senders:
        return _diagnose_refused_senders(context, first, last)
    message, remedy = _explain_failure(context, first)
    return CheckStep("C-MOVE", StepStatus.BAD, message, remedy)


def diagnose_get(trial: RetrievalTrial, *, is_required: bool) -> CheckStep:
    """Return the step of the C-GET; a failure is only a note where another transport is used."""
    if trial.is_complete:
        return CheckStep("C-GET", StepStatus.GOOD, _describe_arrivals(trial))
    message = f"{_describe_arrivals(trial)}. {trial.result.comment}".rstrip()
    return CheckStep("C-GET", StepStatus.BAD if is_required else StepStatus.NOTE, message)


def describe_transfer_syntaxes(trial: RetrievalTrial) -> CheckStep:
    """Return the step that names the transfer syntaxes of the instances."""
    uids = sorted({receipt.transfer_syntax for _, receipt in trial.arrived})
    return CheckStep("transfer syntaxes", StepStatus.GOOD, ", ".join(map(_syntax_name, uids)))


def _syntax_name(uid: str) -> str:
    # Validation would log the peer's text as a warning.
    return name_of_uid(uid)


def _describe_arrivals(trial: RetrievalTrial) -> str:
    arrived = len(trial.arrived)
    if trial.expected_count is None:
        return f"{format_count(arrived, 'instance')} arrived"
    return f"{format_part(arrived, trial.expected_count, 'instance')} arrived"


def _diagnose_refused_senders(
    context: CheckContext, first: RetrievalTrial, last: RetrievalTrial
) -> CheckStep:
    """Return the step of a C-MOVE during which a sender was refused."""
    refused_addresses = {one.address for one in first.refused_senders if "address" in one.reason}
    confirmed = sorted({arrival.peer for arrival, _ in last.arrived} & refused_addresses)
    if not confirmed:
        one = first.refused_senders[0]
        message = f"{_describe_arrivals(first)}; a sender at {one.address} was refused: {one.reason}"
        return CheckStep("C-MOVE", StepStatus.BAD, message, _sender_remedy(context, one))
    context.findings.senders = [*map(str, context.profile.senders), *confirmed]
    line = ", ".join(f'"{sender}"' for sender in context.findings.senders)
    message = (
        f"the archive sends from {', '.join(confirmed)}, which is not its own address, so it was refused"
    )
    remedy = f"add  senders = [{line}]  to the archive's table in quarry.toml (--save writes it)"
    return CheckStep("C-MOVE", StepStatus.BAD, message, remedy)


def _sender_remedy(context: CheckContext, sender: SenderRejected) -> str:
    if sender.called and sender.called != context.local.title:
        registration = context.describe_registration()
        return f"ask the PACS team to register our receiver under its own AE title: {registration}"
    return "if it belongs to the archive, add its address to 'senders' of the archive in quarry.toml"


def _explain_failure(context: CheckContext, trial: RetrievalTrial) -> tuple[str, str]:
    """Return the likely reason why instances are missing, and the remedy."""
    result, title, registration = trial.result, context.local.title, context.describe_registration()
    register_remedy = f"ask the PACS team to register our receiver as a destination: {registration}"
    network_remedy = (
        f"ask the PACS team which host and port it has for {title} (it should be: {registration}), and the "
        "network team whether a firewall blocks connections from the archive to it"
    )
    if trial.refused_instances:
        return f"{_describe_arrivals(trial)}; our own store refused {trial.refused_instances}", ""
    if trial.arrived:
        message = f"{_describe_arrivals(trial)}, so the archive knows {title}. {result.comment}".rstrip()
        return message, "try again; then ask the PACS team"
    message, remedy = _explain_no_arrivals(result, title, register_remedy, network_remedy)
    words = quote_archive_comment(result.comment)
    return (message if not words or message == result.comment else f"{message}. {words}"), remedy


def _explain_no_arrivals(
    result: RetrieveResult, title: str, register_remedy: str, network_remedy: str
) -> tuple[str, str]:
    status = result.status or 0
    if status == _DESTINATION_UNKNOWN:
        return f"the archive does not know {title} as a destination (A801)", register_remedy
    if result.verdict is Verdict.CONFIGURATION:
        return result.comment, f"ask the PACS team to allow {title} to retrieve"
    if result.failed or status in CANNOT_SEND_STATUSES:
        # Neither status nor counters show that the archive knows us: only arrivals do.
        message = f"the archive could not send to {title} ({status:04X}), and nothing arrived: it has another"
        return (
            f"{message} host or port for {title}, does not know it, or a firewall blocks it",
            network_remedy,
        )
    if status >> 12 == 0xC:
        message = (
            f"the archive could not start ({status:04X}) and sent nothing. Probably it does not know {title}"
        )
        message += " as a destination, or has another host or port for it"
        return message, f"{register_remedy}. If it is registered, check its host and port, and the firewall"
    if result.completed:
        sent = format_count(result.completed, "instance")
        message = f"the archive reports that it sent {sent}, and nothing arrived"
        return f"{message}: a firewall, or it has another host or port for {title}", network_remedy
    if result.verdict is Verdict.SUCCESS:
        message = (
            "the archive reports success and sent nothing. It may not know us, or the study is not online"
        )
        return message, f"{register_remedy}; or name another study"
    if result.verdict in (Verdict.LOST, Verdict.CANCELLED):
        return (
            f"the archive stopped answering when it had to send to {title}: a firewall may drop its packets",
            network_remedy,
        )
    return result.comment, ""
