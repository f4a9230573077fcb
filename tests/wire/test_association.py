"""The state table against pynetdicom's own transcription of it, and negotiation on both sides."""

from __future__ import annotations

import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import fsm

from dicom_quarry.errors import LocalProtocolError, RemoteProtocolError
from dicom_quarry.wire import negotiation, pdu
from dicom_quarry.wire.association import (
    TRANSITIONS,
    Aborted,
    Action,
    Association,
    Event,
    Rejection,
    Released,
    ReleaseRequested,
    State,
)
from dicom_quarry.wire.dimse import VERIFICATION
from dicom_quarry.wire.negotiation import (
    AcceptorPolicy,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    PresentationContext,
)
from dicom_quarry.wire.pdu import PduType, PDVFragment

IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
CT = "1.2.840.10008.5.1.4.1.1.2"
PRIVATE = "1.3.12.2.1107.5.9.1"
MAX_PDU = 16384


def request_for(*syntaxes: tuple[str, list[str]], **changes: object) -> AssociateRequest:
    return AssociateRequest("QUARRY", "PACS", negotiation.propose_contexts(syntaxes), MAX_PDU, **changes)  # type: ignore[arg-type]


REQUEST = request_for((VERIFICATION, [IMPLICIT]), (CT, [JPEG, EXPLICIT]))


def feed(association: Association, data: bytes) -> list[Event]:
    reader = association.reader
    reader.get_buffer()[: len(data)] = data
    reader.buffer_updated(len(data))
    return [
        event._replace(data=memoryview(b"".join((event.data, *event.more))), more=())
        if isinstance(event, PDVFragment)
        else event
        for event in association.events()
    ]


def established() -> tuple[Association, Association]:
    """Requestor and acceptor of one association."""
    requestor, acceptor = (
        Association(max_pdu=0, is_requestor=True),
        Association(max_pdu=0, is_requestor=False),
    )
    feed(acceptor, requestor.request(REQUEST))
    feed(requestor, acceptor.accept(AcceptorPolicy(MAX_PDU).answer(REQUEST)))
    assert requestor.state is acceptor.state is State.ESTABLISHED
    return requestor, acceptor


# ---- the table

_ACTIONS = {  # PS3.8 tables 9-6 to 9-9
    "AE-1 AE-2 AE-5 AE-7 AE-8 DT-1 AR-1 AR-4 AR-7 AR-9": Action.SEND,
    "AE-3 AE-4 AE-6 DT-2 AR-2 AR-3 AR-6 AR-8 AR-10": Action.EMIT,
    "AA-6": Action.IGNORE,
    "AA-2 AR-5 AA-5": Action.CLOSE,
    "AA-3 AA-4": Action.PEER_GONE,
    "AA-1 AA-7 AA-8": Action.ABORT,
}
ACTIONS = {name: action for names, action in _ACTIONS.items() for name in names.split()}


def test_the_table_is_that_of_the_standard() -> None:
    ours = {
        (f"Evt{int(cause)}", f"Sta{int(state)}"): (action, f"Sta{int(after)}")
        for state, row in TRANSITIONS.items()
        for cause, (action, after) in row.items()
    }
    theirs = {}
    for key, name in fsm.TRANSITION_TABLE.items():
        after = fsm.ACTIONS[name][2]
        theirs[key] = (ACTIONS[name], after[0] if isinstance(after, tuple) else after)
    assert ours == theirs


@pytest.mark.parametrize("command", ["accept", "reject", "release", "confirm_release", "send"])
def test_commands_out_of_place_are_our_own_error(command: str) -> None:
    association = Association(max_pdu=0, is_requestor=False)
    arguments = {
        "accept": (AcceptorPolicy(0).answer(REQUEST),),
        "reject": (Rejection(1, 1, 1),),
        "send": (1, b"x"),
    }.get(command, ())
    with pytest.raises(LocalProtocolError):
        getattr(association, command)(*arguments)


# ---- what peers do


def test_establish_talk_and_release() -> None:
    requestor, acceptor = established()
    (fragment,) = feed(acceptor, b"".join(requestor.send(1, b"command!")))
    assert isinstance(fragment, PDVFragment)
    assert (fragment.context_id, fragment.is_last, bytes(fragment.data)) == (1, True, b"command!")
    assert feed(acceptor, requestor.release()) == [ReleaseRequested()]
    assert feed(requestor, acceptor.confirm_release()) == [Released()]
    assert (requestor.state, acceptor.state) == (State.IDLE, State.CLOSING)
    assert acceptor.abort() == requestor.abort() == b""


def test_a_release_collision_is_resolved() -> None:
    requestor, acceptor = established()
    from_requestor, from_acceptor = requestor.release(), acceptor.release()
    assert feed(requestor, from_acceptor) == feed(acceptor, from_requestor) == [ReleaseRequested()]
    assert requestor.state is State.COLLISION_REQUESTOR_LOCAL
    assert acceptor.state is State.COLLISION_ACCEPTOR_RP
    assert feed(acceptor, requestor.confirm_release()) == [Released()]
    assert feed(requestor, acceptor.confirm_release()) == [Released()]
    assert (requestor.state, acceptor.state) == (State.IDLE, State.CLOSING)


def test_data_may_still_come_after_a_release_request() -> None:
    requestor, acceptor = established()
    feed(acceptor, requestor.release())
    assert len(feed(requestor, b"".join(acceptor.send(1, b"late")))) == 1


def test_an_abort_ends_it_for_both() -> None:
    requestor, acceptor = established()
    assert feed(acceptor, requestor.abort()) == [Aborted(0, 0)]
    assert (requestor.state, acceptor.state) == (State.CLOSING, State.IDLE)
    assert feed(acceptor, b"".join(pdu.encode_message(1, b"x", b"", 0))) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"".join(pdu.encode_message(1, b"x", b"", 0)), id="data"),
        pytest.param(pdu.encode_release(PduType.RELEASE_RQ), id="release"),
        pytest.param(pdu.encode_release(PduType.RELEASE_RP), id="release response"),
        pytest.param(pdu.encode_reject(1, 1, 1), id="rejection"),
        pytest.param(b"GET / HTTP/1.1\r\n", id="HTTP"),
    ],
)
def test_before_an_association_nothing_else_may_come(data: bytes) -> None:
    association = Association(max_pdu=0, is_requestor=False)
    with pytest.raises(RemoteProtocolError):
        feed(association, data)
    assert association.state is State.CLOSING
    farewell = association.abort()
    assert feed(Association(max_pdu=0, is_requestor=True), farewell) == []
    assert farewell[:1] == bytes((PduType.ABORT,))
    assert association.abort() == b""


def test_a_second_association_request_is_an_error() -> None:
    _, acceptor = established()
    with pytest.raises(RemoteProtocolError):
        feed(acceptor, Association(max_pdu=0, is_requestor=True).request(REQUEST))
    assert acceptor.abort()[8:] == bytes((2, 2))  # by the provider: unexpected PDU


def test_a_rejection_has_result_source_and_reason() -> None:
    requestor, acceptor = (
        Association(max_pdu=0, is_requestor=True),
        Association(max_pdu=0, is_requestor=False),
    )
    feed(acceptor, requestor.request(REQUEST))
    assert feed(requestor, acceptor.reject(Rejection(2, 3, 2))) == [Rejection(2, 3, 2)]
    assert (requestor.state, acceptor.state) == (State.IDLE, State.CLOSING)


# ---- negotiation


def test_request_and_accept_read_back() -> None:
    request = request_for((CT, [JPEG, EXPLICIT]), (PRIVATE, [IMPLICIT]), roles={CT: (False, True)})
    assert negotiation.decode_request(negotiation.encode_request(request)) == request
    accept = AssociateAccept("A", "B", (ContextResult(1, 0, JPEG),), 4096, {CT: (False, True)})
    assert negotiation.decode_accept(negotiation.encode_accept(accept)) == accept


def test_titles_do_not_steer_a_terminal() -> None:
    request = AssociateRequest(
        "A\x1b[2JB", "\x9b31m\nC", REQUEST.contexts, MAX_PDU, implementation_version="\x07D"
    )
    read = negotiation.decode_request(negotiation.encode_request(request))
    assert (read.called, read.calling, read.implementation_version) == ("A?[2JB", "?31m?C", "?D")


def test_a_uid_that_is_none_is_neither_warned_of_nor_repeated() -> None:
    endless = [f"1.2.{number}{'9' * 40_000}" for number in range(2)]
    request = request_for(
        ("1.2.840.10008.5.1.4.1.1.02", [IMPLICIT]),
        *[(uid, [uid, IMPLICIT]) for uid in endless],
        roles=dict.fromkeys(endless, (True, False)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accept = AcceptorPolicy(MAX_PDU).answer(request)
    assert [answer.result for answer in accept.results] == [0, 3, 3]
    assert negotiation.decode_accept(negotiation.encode_accept(accept)).roles == {}


def answered(request: AssociateRequest) -> list[tuple[int, str]]:
    accept = AcceptorPolicy(MAX_PDU).answer(request)
    return [(answer.result, answer.transfer_syntax) for answer in accept.results]


def test_the_first_transfer_syntax_wins_but_explicit_vr_before_implicit_vr() -> None:
    request = request_for(
        (CT, [JPEG, EXPLICIT]),
        (CT, [IMPLICIT]),
        (CT, [IMPLICIT, EXPLICIT]),
        (CT, [EXPLICIT, IMPLICIT]),
        (CT, [IMPLICIT, JPEG, EXPLICIT]),
        (CT, [JPEG, IMPLICIT, EXPLICIT]),
        (CT, [IMPLICIT, JPEG]),
    )
    assert [syntax for _, syntax in answered(request)] == [
        *(JPEG, IMPLICIT, EXPLICIT, EXPLICIT, EXPLICIT, JPEG, IMPLICIT)
    ]


@pytest.mark.parametrize(
    ("uid", "taken"),
    [
        (VERIFICATION, True),
        (CT, True),
        (PRIVATE, True),
        ("1.2.840.10008.5.1.4.1.1.999.1", True),  # a storage class newer than our dictionary
        ("1.2.840.10008.5.1.4.34.7", True),  # RT Beams Delivery Instruction Storage
        ("1.2.840.10008.5.1.4.1.1.481.3", True),
        ("1.2.840.10008.5.1.4.1.2.2.1", False),  # Study Root FIND
        ("1.2.840.10008.1.20.1", False),  # Storage Commitment
        ("1.2.840.10008.5.1.4.1.1.201.2", False),  # Inventory FIND
        ("1.2.840.10008.5.1.4.31", False),  # Worklist
        ("", False),
        ("../../etc", False),
    ],
)
def test_storage_classes_and_verification_are_taken(uid: str, taken: bool) -> None:
    ((result, _),) = answered(request_for((uid, [IMPLICIT])))
    assert result == (ContextResult.ACCEPTED if taken else ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED)


def test_a_context_without_transfer_syntaxes_is_rejected() -> None:
    assert answered(request_for((CT, []), (CT, ["nonsense"]))) == [(4, ""), (4, "")]


def test_we_grant_the_scu_role_only() -> None:
    request = request_for(
        (CT, [IMPLICIT]), (PRIVATE, [IMPLICIT]), roles={CT: (True, True), PRIVATE: (False, True)}
    )
    accept = AcceptorPolicy(MAX_PDU).answer(request)
    assert [answer.result for answer in accept.results] == [0, ContextResult.USER_REJECTION]
    assert accept.roles == {CT: (True, False)}


def test_all_128_contexts_fit() -> None:
    request = request_for(*[(f"1.2.3.{number}", [IMPLICIT, EXPLICIT]) for number in range(128)])
    read = negotiation.decode_request(negotiation.encode_request(request))
    assert [context.context_id for context in read.contexts] == list(range(1, 256, 2))
    with pytest.raises(LocalProtocolError):
        negotiation.propose_contexts([(CT, [IMPLICIT])] * 129)


@pytest.mark.parametrize("ids", [(2,), (0,), (1, 1), (1, 3, 5, 3)])
def test_even_and_repeated_context_ids_are_errors(ids: tuple[int, ...]) -> None:
    request = AssociateRequest(
        "A", "B", tuple(PresentationContext(context_id, CT, (IMPLICIT,)) for context_id in ids), MAX_PDU
    )
    with pytest.raises(RemoteProtocolError, match="even or repeated"):
        negotiation.decode_request(negotiation.encode_request(request))


def with_user_items(*items: bytes) -> bytes:
    """A request's body with more user information items."""
    body = negotiation.encode_request(REQUEST)
    start = body.rindex(b"\x50\x00", 0, body.rindex(b"\x51\x00\x00\x04"))
    user = body[start + 4 :] + b"".join(items)
    return body[:start] + struct.pack(">BxH", 0x50, len(user)) + user


def test_other_user_items_are_tolerated_and_declined_by_omission() -> None:
    identity = bytes((2, 1)) + struct.pack(">H", 60000) + bytes(60000) + bytes(2)
    window = bytes((0, 9, 0, 9))
    extended = struct.pack(">H", len(CT)) + CT.encode() + bytes((2, 0, 3, 0, 1, 0))
    body = with_user_items(
        *[
            struct.pack(">BxH", kind, len(data)) + data
            for kind, data in ((0x53, window), (0x56, extended), (0x58, identity), (0x99, b"?"))
        ]
    )
    assert negotiation.decode_request(body) == REQUEST
    accept = negotiation.encode_accept(AcceptorPolicy(MAX_PDU).answer(REQUEST))
    user = accept[accept.index(b"\x51\x00\x00\x04") :]
    for kind in (0x53, 0x56, 0x59):
        assert bytes((kind, 0)) not in user


@pytest.mark.parametrize("roles", [b"", b"\0", b"\1"])
def test_a_role_item_without_both_roles_leaves_the_default_roles(roles: bytes) -> None:
    item = struct.pack(">H", len(CT)) + CT.encode() + roles
    body = with_user_items(struct.pack(">BxH", 0x54, len(item)) + item)
    assert negotiation.decode_request(body) == REQUEST


def test_bytes_after_the_roles_of_an_item_are_passed_over() -> None:
    item = struct.pack(">H", len(CT)) + CT.encode() + b"\1\1\0"
    body = with_user_items(struct.pack(">BxH", 0x54, len(item)) + item)
    assert negotiation.decode_request(body).roles == {CT: (True, True)}


@given(st.binary(max_size=600))
def test_no_association_items_raise_anything_else(items: bytes) -> None:
    for decode in (negotiation.decode_request, negotiation.decode_accept):
        try:
            decode(bytes(68) + items)
        except RemoteProtocolError:
            pass


@given(st.integers(68, 200), st.integers(0, 255))
def test_a_request_with_a_flipped_byte_is_read_or_refused(place: int, value: int) -> None:
    body = bytearray(negotiation.encode_request(REQUEST))
    body[place % len(body)] = value
    try:
        negotiation.decode_request(bytes(body))
    except RemoteProtocolError:
        pass


def test_a_transfer_syntax_that_was_not_proposed_is_an_error() -> None:
    accept = AssociateAccept("A", "B", (ContextResult(1, 0, JPEG),), 0)
    with pytest.raises(RemoteProtocolError):
        negotiation.accepted_contexts(REQUEST, accept)
