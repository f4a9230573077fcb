"""Association negotiation (PS3.8 7.1, 9.3.2, 9.3.3; PS3.7 annex D.3).

A-ASSOCIATE-RQ and A-ASSOCIATE-AC as frozen values, their encoding and decoding, and the acceptor's answer.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType

from dicom_quarry.errors import LocalProtocolError, RemoteProtocolError
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_quarry.wire.data_dictionary import is_sop_class, name_of_uid
from dicom_quarry.wire.dimse import VERIFICATION

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
MAX_CONTEXTS = 128  # odd numbers of one byte
_STANDARD_ROOT = "1.2.840.10008."
_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
# Some UIDs are longer than the 64 characters of PS3.5 9.1, but a UID in an answer must fit into one item.
_MAX_UID_LENGTH = 128
_IMPLICIT_LITTLE, _EXPLICIT_LITTLE = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

_FIXED = struct.Struct(">HH16s16s32x")
_ITEM = struct.Struct(">BxH")

#: Negotiations whose values are kept: an archive proposes the same 126 contexts for every C-MOVE, and to
#: decode and answer them takes as long as to receive a small study.
_KEPT_NEGOTIATIONS = 8

#: SCU role and SCP role of the requestor of the association (PS3.7 D.3.3.4).
Roles = tuple[bool, bool]


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """A proposed presentation context (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    """The acceptor's answer to a presentation context (PS3.8 9.3.3.2, table 9-18)."""

    ACCEPTED = 0
    USER_REJECTION = 1
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4

    context_id: int
    result: int
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2), without the items that Quarry does not use.

    These are user identity, extended negotiation and the asynchronous operations window. ``max_pdu`` is the
    longest P-DATA-TF, in bytes, that the requestor accepts (PS3.8 D.1; 0: no limit).
    """

    called: str
    calling: str
    contexts: tuple[PresentationContext, ...] = field(hash=False)
    max_pdu: int
    roles: Mapping[str, Roles] = field(default_factory=dict, hash=False)
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = 1
    implementation_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version: str = IMPLEMENTATION_VERSION_NAME


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """An A-ASSOCIATE-AC (PS3.8 9.3.3); ``max_pdu`` is the acceptor's, in bytes (0: no limit)."""

    called: str
    calling: str
    results: tuple[ContextResult, ...] = field(hash=False)
    max_pdu: int
    roles: Mapping[str, Roles] = field(default_factory=dict, hash=False)
    implementation_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version: str = IMPLEMENTATION_VERSION_NAME


def _encode_item(kind: int, data: bytes) -> bytes:
    return _ITEM.pack(kind, len(data)) + data


def _encode_uid_item(kind: int, uid: str) -> bytes:
    return _encode_item(kind, uid.encode("latin-1"))


def _encode_title(title: str) -> bytes:
    return title.encode("latin-1", "replace")[:16].ljust(16)


def encode_request(request: AssociateRequest) -> bytes:
    """Encode the body of an A-ASSOCIATE-RQ (PS3.8 9.3.2)."""
    contexts = b"".join(
        _encode_item(
            0x20,
            bytes((context.context_id, 0, 0, 0))
            + _encode_uid_item(0x30, context.abstract_syntax)
            + b"".join(_encode_uid_item(0x40, syntax) for syntax in context.transfer_syntaxes),
        )
        for context in request.contexts
    )
    return _encode(request, contexts)


@lru_cache(_KEPT_NEGOTIATIONS)
def encode_accept(accept: AssociateAccept) -> bytes:
    """Encode the body of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""
    contexts = b"".join(
        _encode_item(
            0x21,
            bytes((answer.context_id, 0, answer.result, 0)) + _encode_uid_item(0x40, answer.transfer_syntax),
        )
        for answer in accept.results
    )
    return _encode(accept, contexts)


def _encode(pdu: AssociateRequest | AssociateAccept, contexts: bytes) -> bytes:
    user = _encode_item(0x51, struct.pack(">L", pdu.max_pdu)) + _encode_uid_item(0x52, pdu.implementation_uid)
    for uid, (scu, scp) in pdu.roles.items():
        user += _encode_item(0x54, struct.pack(">H", len(uid)) + uid.encode("latin-1") + bytes((scu, scp)))
    user += _encode_uid_item(0x55, pdu.implementation_version)
    fixed = _FIXED.pack(1, 0, _encode_title(pdu.called), _encode_title(pdu.calling))
    return fixed + _encode_uid_item(0x10, APPLICATION_CONTEXT) + contexts + _encode_item(0x50, user)


def _decode_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        if len(data) - offset < 4:
            raise RemoteProtocolError("an association item without its length")
        kind, length = _ITEM.unpack_from(data, offset)
        offset += 4
        if length > len(data) - offset:
            raise RemoteProtocolError(f"association item 0x{kind:02X} is longer than its PDU or parent item")
        yield kind, data[offset : offset + length]
        offset += length


def _decode_text(data: bytes) -> str:
    return data.decode("latin-1").strip("\0 ")


def _decode_printable(data: bytes) -> str:
    """Replace control characters: AE titles and names reach terminals and logs."""
    return "".join(char if char.isprintable() else "?" for char in _decode_text(data))


@dataclass(slots=True)
class _UserInformation:
    """The items of the user information (PS3.7 D.3.3) that Quarry uses; all others are skipped."""

    max_pdu: int = 0
    implementation_uid: str = ""
    implementation_version: str = ""
    roles: dict[str, Roles] = field(default_factory=dict)

    def read(self, data: bytes) -> None:
        for kind, value in _decode_items(data):
            if kind == 0x51:
                if len(value) != 4:
                    raise RemoteProtocolError("a maximum length that does not have four bytes")
                self.max_pdu = int.from_bytes(value, "big")
                if 0 < self.max_pdu < 8:  # too small for a PDV with two bytes of data
                    raise RemoteProtocolError(f"a maximum PDU length of {self.max_pdu}")
            elif kind == 0x52:
                self.implementation_uid = _decode_printable(value)
            elif kind == 0x54:
                self._read_role(value)
            elif kind == 0x55:
                self.implementation_version = _decode_printable(value)

    def _read_role(self, value: bytes) -> None:
        """Read a role selection item (PS3.7 D.3.3.4); one without both roles leaves the default roles."""
        end = 2 + int.from_bytes(value[:2], "big")
        roles = value[end : end + 2]
        if len(roles) == 2:
            self.roles[_decode_text(value[2:end])] = (roles[0] == 1, roles[1] == 1)


@lru_cache(_KEPT_NEGOTIATIONS)
def decode_request(body: bytes) -> AssociateRequest:
    """Decode the body of an A-ASSOCIATE-RQ (PS3.8 9.3.2); raises RemoteProtocolError."""
    version, _, called, calling = _FIXED.unpack_from(body)
    contexts: dict[int, PresentationContext] = {}
    application, user = "", _UserInformation()
    for kind, value in _decode_items(body[_FIXED.size :]):
        if kind == 0x10:
            application = _decode_text(value)
        elif kind == 0x20:
            context = _decode_context(value)
            if context.context_id % 2 == 0 or context.context_id in contexts:
                raise RemoteProtocolError(f"presentation context ID {context.context_id} is even or repeated")
            contexts[context.context_id] = context
        elif kind == 0x50:
            user.read(value)
    return AssociateRequest(
        called=_decode_printable(called),
        calling=_decode_printable(calling),
        contexts=tuple(contexts.values()),
        max_pdu=user.max_pdu,
        roles=user.roles,
        application_context=application,
        protocol_version=version,
        implementation_uid=user.implementation_uid,
        implementation_version=user.implementation_version,
    )


def _decode_context(value: bytes) -> PresentationContext:
    if len(value) < 4:
        raise RemoteProtocolError("a presentation context without its ID")
    abstract, transfer = "", []
    for kind, uid in _decode_items(value[4:]):
        if kind == 0x30:
            abstract = _decode_text(uid)
        elif kind == 0x40:
            transfer.append(_decode_text(uid))
    return PresentationContext(value[0], abstract, tuple(transfer))


def decode_accept(body: bytes) -> AssociateAccept:
    """Decode the body of an A-ASSOCIATE-AC (PS3.8 9.3.3); raises RemoteProtocolError."""
    _, _, called, calling = _FIXED.unpack_from(body)
    results, user = [], _UserInformation()
    for kind, value in _decode_items(body[_FIXED.size :]):
        if kind == 0x21:
            results.append(_decode_result(value))
        elif kind == 0x50:
            user.read(value)
    return AssociateAccept(
        called=_decode_printable(called),
        calling=_decode_printable(calling),
        results=tuple(results),
        max_pdu=user.max_pdu,
        roles=user.roles,
        implementation_uid=user.implementation_uid,
        implementation_version=user.implementation_version,
    )


def _decode_result(value: bytes) -> ContextResult:
    if len(value) < 4:
        raise RemoteProtocolError("a presentation context result without its ID")
    syntax = ""
    if value[2] == ContextResult.ACCEPTED:  # else the transfer syntax is not significant (PS3.8 9.3.3.2)
        syntax = next((_decode_text(uid) for kind, uid in _decode_items(value[4:]) if kind == 0x40), "")
    return ContextResult(value[0], value[2], syntax)


def _is_uid(text: str) -> bool:
    return len(text) <= _MAX_UID_LENGTH and _UID.fullmatch(text) is not None


def is_storage(abstract_syntax: str) -> bool:
    """Return True for a storage SOP class of the standard (PS3.4 B.5) and for any private SOP class."""
    if not _is_uid(abstract_syntax):
        return False
    if not abstract_syntax.startswith(_STANDARD_ROOT):
        return True
    name = name_of_uid(abstract_syntax)
    if name != abstract_syntax:
        return is_sop_class(abstract_syntax) and "Storage" in name and "Commitment" not in name
    return abstract_syntax.startswith(_STORAGE_ROOT)  # newer than the dictionary


def is_verification(abstract_syntax: str) -> bool:
    """Return True for the Verification SOP class of C-ECHO (PS3.4 A.4)."""
    return abstract_syntax == VERIFICATION


@dataclass(frozen=True, slots=True)
class AcceptorPolicy:
    """An acceptor's rules for proposed presentation contexts.

    ``accepts`` decides about the SOP class. Any transfer syntax is accepted, since datasets are stored as
    they come: the first one that was proposed, which is most likely that of the sender's files. But Explicit
    VR is chosen before Implicit VR: a conversion to the latter loses the VRs of private elements, and one
    from it loses nothing (PS3.5 A.1, A.2). ``max_pdu`` is in bytes.
    """

    max_pdu: int
    accepts: Callable[[str], bool] = lambda uid: is_storage(uid) or is_verification(uid)

    def answer(self, request: AssociateRequest) -> AssociateAccept:
        """Return the A-ASSOCIATE-AC to a request.

        Extended negotiation, user identity and the asynchronous window are declined by omission, which is
        always legal (PS3.7 D.3.3.3, D.3.3.5, D.3.3.7).
        """
        return _answer(self, request)

    def answer_context(self, context: PresentationContext, roles: Mapping[str, Roles]) -> ContextResult:
        """Return the answer to one proposed context."""
        offered = [uid for uid in context.transfer_syntaxes if _is_uid(uid)]
        # A rejected context must name a transfer syntax, too, though it is not significant (PS3.8 9.3.3.2).
        first = offered[0] if offered else ""
        if not self.accepts(context.abstract_syntax):
            return ContextResult(context.context_id, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, first)
        if not offered:
            return ContextResult(context.context_id, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED)
        if not roles.get(context.abstract_syntax, (True, False))[0]:
            return ContextResult(context.context_id, ContextResult.USER_REJECTION, first)
        chosen = _EXPLICIT_LITTLE if first == _IMPLICIT_LITTLE and _EXPLICIT_LITTLE in offered else first
        return ContextResult(context.context_id, ContextResult.ACCEPTED, chosen)


@lru_cache(_KEPT_NEGOTIATIONS)
def _answer(policy: AcceptorPolicy, request: AssociateRequest) -> AssociateAccept:
    results = tuple(policy.answer_context(context, request.roles) for context in request.contexts)
    accepted = {
        context.abstract_syntax
        for context, result in zip(request.contexts, results, strict=True)
        if result.result == ContextResult.ACCEPTED
    }
    # Quarry is SCP only: accept the peer's SCU role, not its SCP role (PS3.7 D.3.3.4.2).
    roles = {uid: (scu, False) for uid, (scu, _) in request.roles.items() if uid in accepted}
    return AssociateAccept(request.called, request.calling, results, policy.max_pdu, roles)


def propose_contexts(syntaxes: Sequence[tuple[str, Sequence[str]]]) -> tuple[PresentationContext, ...]:
    """Build presentation contexts from pairs of an abstract syntax and its transfer syntaxes.

    Their IDs are 1, 3, 5 and so on. Raises LocalProtocolError unless there are 1 to MAX_CONTEXTS pairs.
    """
    if not 0 < len(syntaxes) <= MAX_CONTEXTS:
        raise LocalProtocolError(
            f"{len(syntaxes)} presentation contexts: 1 to {MAX_CONTEXTS} can be proposed"
        )
    return tuple(
        PresentationContext(2 * number + 1, abstract, tuple(transfer))
        for number, (abstract, transfer) in enumerate(syntaxes)
    )


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """An accepted presentation context."""

    abstract_syntax: str
    transfer_syntax: str


@lru_cache(_KEPT_NEGOTIATIONS)
def accepted_contexts(request: AssociateRequest, accept: AssociateAccept) -> Mapping[int, AcceptedContext]:
    """Return the accepted presentation contexts by ID.

    Raises RemoteProtocolError if one was accepted with a transfer syntax that was not proposed.
    """
    proposed = {context.context_id: context for context in request.contexts}
    accepted: dict[int, AcceptedContext] = {}
    for answer in accept.results:
        context = proposed.get(answer.context_id)
        if context and answer.result == ContextResult.ACCEPTED:
            if answer.transfer_syntax not in context.transfer_syntaxes:
                raise RemoteProtocolError("it accepted a transfer syntax that was not proposed")
            accepted[answer.context_id] = AcceptedContext(context.abstract_syntax, answer.transfer_syntax)
    return MappingProxyType(accepted)
