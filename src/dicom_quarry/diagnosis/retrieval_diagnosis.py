"""What a C-MOVE to our receiver shows: pure. The archive's word counts for less than what has arrived."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.config import IGNORE
from pydicom.uid import UID

from dicom_quarry.archive.base import Answered, Verdict
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.model import Arrival, Receipt
from dicom_quarry.receiver.server import SenderRefused

_DESTINATION_UNKNOWN = 0xA801
#: The archive could not connect to the destination: A702 of many archives, C502 of some (PN#764, PN#310).
_CANNOT_REACH = frozenset({0xA702, 0xC502})


@dataclass(frozen=True, slots=True)
class Trial:
    """What the archive answered, and what came; ``refused_instances`` were not taken by our store."""

    answered: Answered
    expected: int | None
    arrived: tuple[tuple[Arrival, Receipt], ...] = ()
    refused: tuple[SenderRefused, ...] = ()
    refused_instances: int = 0

    @property
    def whole(self) -> bool:
        """Every instance that was listed is here."""
        return bool(self.arrived) and (self.expected is None or len(self.arrived) >= self.expected)


def judge(bench: Bench, trials: Sequence[Trial]) -> Step:
    """The step of the C-MOVE; senders that are the archive's are remembered."""
    first, last = trials[0], trials[-1]
    if first.whole:
        return Step("C-MOVE", Mark.GOOD, _what_came(first))
    if first.refused:
        return _senders(bench, first, last)
    said, remedy = _explained(bench, first)
    return Step("C-MOVE", Mark.BAD, said, remedy)


def judge_get(trial: Trial, *, needed: bool) -> Step:
    """The step of the C-GET; where another road is used it is only worth knowing."""
    if trial.whole:
        return Step("C-GET", Mark.GOOD, _what_came(trial))
    said = f"{_what_came(trial)}; the archive says: {trial.answered.comment}"
    return Step("C-GET", Mark.BAD if needed else Mark.NOTE, said)


def syntaxes(trial: Trial) -> Step:
    """The transfer syntaxes in which the study came."""
    uids = sorted({receipt.transfer_syntax for _, receipt in trial.arrived})
    return Step("transfer syntaxes", Mark.GOOD, ", ".join(map(_syntax, uids)))


def _syntax(uid: str) -> str:
    # A validation would warn with the peer's words.
    return UID(uid, validation_mode=IGNORE).name or uid


def _what_came(trial: Trial) -> str:
    of = f" of {trial.expected}" if trial.expected is not None else ""
    return f"{len(trial.arrived)}{of} instances arrived"


def _senders(bench: Bench, first: Trial, last: Trial) -> Step:
    """Somebody was not let in while the study was on its way."""
    known = {one.address for one in first.refused if "address" in one.why}
    proved = sorted({arrival.peer for arrival, _ in last.arrived} & known)
    if not proved:
        one = first.refused[0]
        said = f"{_what_came(first)}; a sender at {one.address} was refused: {one.why}"
        return Step("C-MOVE", Mark.BAD, said, _for_stranger(bench, one))
    bench.learned.senders = [*map(str, bench.profile.senders), *proved]
    line = ", ".join(f'"{sender}"' for sender in bench.learned.senders)
    said = f"the archive sends from {', '.join(proved)}, which is not its own address, and was refused"
    remedy = f"add  senders = [{line}]  to the archive's table in quarry.toml (--save writes it)"
    return Step("C-MOVE", Mark.BAD, said, remedy)


def _for_stranger(bench: Bench, sender: SenderRefused) -> str:
    if sender.called and sender.called != bench.local.title:
        return f"ask the PACS team to register our receiver under its own title: {bench.registration()}"
    return "if it belongs to the archive, add its address to 'senders' of the archive in quarry.toml"


def _explained(bench: Bench, trial: Trial) -> tuple[str, str]:
    """What is likely wrong where too little came, and what to ask for."""
    answered, title, registration = trial.answered, bench.local.title, bench.registration()
    register = f"ask the PACS team to register our receiver as a destination: {registration}"
    road = (
        f"ask the PACS team which host and port it has for {title} (it should be: {registration}), and the "
        "network team whether a firewall lets the archive through to it"
    )
    if trial.refused_instances:
        return f"{_what_came(trial)}; {trial.refused_instances} were refused by our own store", ""
    if trial.arrived:
        return (
            f"{_what_came(trial)}; the archive says: {answered.comment}",
            "try again; then ask the PACS team",
        )
    return _nothing_came(answered, title, register, road)


def _nothing_came(answered: Answered, title: str, register: str, road: str) -> tuple[str, str]:
    status = answered.status or 0
    if status == _DESTINATION_UNKNOWN:
        return f"the archive does not know {title} as a destination (A801)", register
    if answered.verdict is Verdict.CONFIGURATION:
        return answered.comment, f"ask the PACS team to allow {title} to retrieve"
    if answered.failed or status in _CANNOT_REACH:
        said = f"the archive knows {title} and could not send to it ({status:04X})"
        return f"{said}: a wrong host or port there, or a firewall", road
    if status >> 12 == 0xC:
        said = f"the archive could not start ({status:04X}), and sent nothing: it does not know {title}"
        said += " as a destination, or has another host or port for it"
        return (
            said,
            f"{register}. If it is there: is its host and port right, does a firewall let them through?",
        )
    if answered.completed:
        said = f"the archive says that it sent {answered.completed} instances, and nothing arrived"
        return f"{said}: a firewall, or it has another host or port for {title}", road
    if answered.verdict is Verdict.SUCCESS:
        said = "the archive reports success, and sent nothing: it may not know us, or the study is not online"
        return said, f"{register}; or name another study"
    if answered.verdict in (Verdict.LOST, Verdict.CANCELLED):
        return (
            f"the archive fell silent when it was to send to {title}: a firewall that drops its packets",
            road,
        )
    return answered.comment, ""
