"""Access rules of the receiver: which senders may open an association, and for which services."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from dicom_quarry.system.addresses import (
    THIS_COMPUTER,
    IPNetwork,
    identify_computer,
    normalize_network,
    parse_address,
)
from dicom_quarry.wire.association import Rejection
from dicom_quarry.wire.negotiation import AssociateRequest

# PS3.8 table 9-21, all rejected-permanent by the service user.
_NO_REASON = Rejection(result=1, source=1, reason=1)
_CALLING_UNKNOWN = Rejection(result=1, source=1, reason=3)
_CALLED_UNKNOWN = Rejection(result=1, source=1, reason=7)


class AccessScope(Enum):
    """Services that an admitted sender may use."""

    STORE = "C-STORE and C-ECHO"
    ECHO = "C-ECHO only"


@dataclass(frozen=True, slots=True)
class AccessDenial:
    """The A-ASSOCIATE-RJ for a refused sender, and the reason for our own user."""

    rejection: Rejection
    reason: str


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """The receiver's own AE titles, and its allowed senders by AE title and by network; empty means any.

    This computer itself may always send a C-ECHO, so that a job can test its own receiver.
    """

    called: frozenset[str] = frozenset()
    calling: frozenset[str] = frozenset()
    networks: tuple[IPNetwork, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "networks", tuple(map(normalize_network, self.networks)))

    @property
    def admits_ipv6(self) -> bool:
        """True if a sender with an IPv6 address is named: the receiver must listen there, too."""
        return any(network.version == 6 for network in self.networks)

    def evaluate(self, request: AssociateRequest, address: str) -> AccessScope | AccessDenial:
        """Decide about a sender by its association request and its network address."""
        denial = self.check_store(request, address)
        if denial is None:
            return AccessScope.STORE
        ip = parse_address(address)
        if denial.rejection == _CALLED_UNKNOWN or ip is None:
            return denial
        # A receiver at one address of this computer is also called from that one.
        return AccessScope.ECHO if identify_computer(ip) == THIS_COMPUTER else denial

    def check_store(self, request: AssociateRequest, address: str) -> AccessDenial | None:
        """Return the denial for a sender that may not store; None for one that may."""
        ip = parse_address(address)
        if self.called and request.called not in self.called:
            titles = " or ".join(sorted(self.called))
            return AccessDenial(
                _CALLED_UNKNOWN, f"it called the AE title {request.called}, but this receiver is {titles}"
            )
        if self.networks and (ip is None or not any(ip in network for network in self.networks)):
            return AccessDenial(_NO_REASON, f"its address {ip} is not in the list of allowed senders")
        if self.calling and request.calling not in self.calling:
            return AccessDenial(
                _CALLING_UNKNOWN, f"its AE title {request.calling} is not in the list of allowed senders"
            )
        return None
