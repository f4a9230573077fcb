"""Who may open an association with the receiver, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.negotiation import AssociateRequest

# PS3.8 table 9-21, all of them rejected-permanent by the service user.
_NO_REASON = Rejection(result=1, source=1, reason=1)
_CALLING_UNKNOWN = Rejection(result=1, source=1, reason=3)
_CALLED_UNKNOWN = Rejection(result=1, source=1, reason=7)


class Scope(Enum):
    """What an admitted sender may do."""

    STORE = "C-STORE and C-ECHO"
    ECHO = "C-ECHO only"


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a sender who is not let in, and the sentence for our own user."""

    rejection: Rejection
    why: str


@dataclass(frozen=True, slots=True)
class Admission:
    """AE titles that the receiver answers to, and senders by AE title and by network. Empty means any.

    This computer itself may always send a C-ECHO, so that a job can try its own receiver.
    """

    called: frozenset[str] = frozenset()
    calling: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    def judge(self, request: AssociateRequest, address: str) -> Scope | Refusal:
        """Decide about a sender by what its association request says and by where it comes from."""
        objection = self.objection(request, address)
        if objection is None:
            return Scope.STORE
        if objection.rejection != _CALLED_UNKNOWN and _address(address).is_loopback:
            return Scope.ECHO
        return objection

    def objection(self, request: AssociateRequest, address: str) -> Refusal | None:
        """Why a sender may not store here; None if it may."""
        ip = _address(address)
        if self.called and request.called not in self.called:
            return Refusal(_CALLED_UNKNOWN, f"it calls for {request.called}, which is not a title of ours")
        if self.networks and not any(ip in network for network in self.networks):
            return Refusal(_NO_REASON, f"its address {ip} is not among the senders")
        if self.calling and request.calling not in self.calling:
            return Refusal(_CALLING_UNKNOWN, f"its AE title {request.calling} is not among the senders")
        return None


def _address(text: str) -> IPv4Address | IPv6Address:
    ip = ip_address(text.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return mapped or ip
