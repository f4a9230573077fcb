"""How this side calls an archive: its address, our title, how patient we are."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dicom_quarry.archive.dimse.association_pool import PooledAssociation
from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE
from dicom_quarry.archive.dimse.information_models import describe_service
from dicom_quarry.errors import Rejected
from dicom_quarry.model import AE
from dicom_quarry.wire.connection import Requestor
from dicom_quarry.wire.negotiation import Roles


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long, in seconds, the archive may take: to accept a connection, an association, to go on with a
    query, and to end a retrieval that was cancelled.
    """

    connect: float = 10.0
    associate: float = 30.0
    query: float = 60.0
    cancel: float = 10.0


@dataclass(frozen=True, slots=True)
class AssociationFactory:
    """``peer`` is the archive, ``calling`` our own AE title."""

    peer: AE
    calling: str
    timeouts: Timeouts = Timeouts()
    tls: ssl.SSLContext | None = None

    def associate(
        self,
        sop_class: str,
        extra_contexts: Sequence[tuple[str, Sequence[str]]] = (),
        roles: Mapping[str, Roles] | None = None,
    ) -> PooledAssociation:
        """Associate for a SOP class of queries or retrievals, and propose ``more`` contexts beside it.

        Raises Unreachable; and Rejected, also where the archive does not offer the SOP class.
        """
        requestor = Requestor.connect(
            self.peer,
            calling=self.calling,
            contexts=[(sop_class, [IMPLICIT_LITTLE]), *extra_contexts],
            connect_timeout=self.timeouts.connect,
            answer_timeout=self.timeouts.associate,
            tls=self.tls,
            roles=roles,
        )
        if sop_class not in requestor.accepted:
            requestor.release()
            detail = f"{self.peer} does not offer {describe_service(sop_class)} to {self.calling}"
            raise Rejected(detail, permanent=True)
        return PooledAssociation(requestor, sop_class)
