"""The road to the archive: its name, its port, an association, C-ECHO, the services that it offers."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE
from dicom_quarry.archive.dimse.information_models import MODELS
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.errors import ArchiveError, Lost, QueryFailed, Rejected
from dicom_quarry.wire import error_messages
from dicom_quarry.wire.connection import Requestor
from dicom_quarry.wire.dimse import VERIFICATION

_PATIENCE = 10.0


def road(bench: Bench) -> Iterator[Step]:
    """Steps up to the first that fails: there is no going on beyond it."""
    for stage in (host_name, port, _association, _echo, _services):
        step = stage(bench)
        yield step
        if step.mark is Mark.BAD:
            return


def host_name(bench: Bench) -> Step:
    """Whether the name of the archive's host is known here."""
    peer = bench.profile.places[0]
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        said = error_messages.unreachable(peer.host, peer.port, _PATIENCE, error)
        return Step("name", Mark.BAD, said, "correct --from, or ask the PACS team for the archive's address")
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    if _is_address(peer.host):
        return Step("name", Mark.GOOD, f"{peer.host} is an address")
    return Step("name", Mark.GOOD, f"{peer.host} is {', '.join(addresses)}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def port(bench: Bench) -> Step:
    """Whether somebody listens there."""
    peer = bench.profile.places[0]
    try:
        with socket.create_connection((peer.host, peer.port), _PATIENCE) as connection:
            bench.learned.our_address = str(connection.getsockname()[0])
    except OSError as error:
        bench.learned.our_address = _our_address(peer.host, peer.port)
        remedy = (
            f"if address and port are right, ask the network team to let {bench.learned.our_address or 'us'} "
            f"through to {peer.host}, TCP port {peer.port}"
        )
        return Step(
            "port", Mark.BAD, error_messages.unreachable(peer.host, peer.port, _PATIENCE, error), remedy
        )
    said = f"somebody listens at {peer.host}:{peer.port}; we come from {bench.learned.our_address}"
    return Step("port", Mark.GOOD, said)


def _our_address(host: str, port: int) -> str:
    """The address from which packets to the archive would leave: a connected datagram socket sends none."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((host, port))
            return str(route.getsockname()[0])
    except OSError:
        return ""


def _association(bench: Bench) -> Step:
    title, peer = bench.local.title, bench.profile.entity
    try:
        _connect(bench, [VERIFICATION]).release()
    except Rejected as error:
        ask = f"ask the PACS team to admit {title} from {bench.learned.our_address} to {peer.title}"
        return Step("association", Mark.BAD, str(error), ask if error.permanent else "try again later")
    except ArchiveError as error:
        tls = (
            'ask the PACS team for the port for TLS, or set tls = "none"'
            if bench.profile.tls != "none"
            else ""
        )
        return Step("association", Mark.BAD, str(error), tls)
    return Step("association", Mark.GOOD, f"{peer.title} takes associations from {title}")


def _echo(bench: Bench) -> Step:
    archive = bench.archive("study")
    try:
        archive.probe()
    except (Rejected, Lost, QueryFailed) as error:
        return Step(
            "C-ECHO", Mark.BAD, str(error), f"ask the PACS team to allow C-ECHO to {bench.local.title}"
        )
    except ArchiveError as error:
        return Step("C-ECHO", Mark.BAD, str(error))
    finally:
        archive.close()
    return Step("C-ECHO", Mark.GOOD, "answered")


def _services(bench: Bench) -> Step:
    """What is accepted when it is proposed: nothing is asked yet."""
    try:
        requestor = _connect(
            bench, [uid for model in MODELS.values() for uid in (model.find, model.move, model.get)]
        )
    except ArchiveError as error:
        return Step("services", Mark.BAD, str(error))
    requestor.release()
    learned, accepted = bench.learned, requestor.accepted
    for name, model in MODELS.items():
        learned.gets[name] = model.find in accepted and model.get in accepted
        learned.models[name] = model.find in accepted and model.move in accepted
    moves, gets = (
        any(model.move in accepted for model in MODELS.values()),
        any(model.get in accepted for model in MODELS.values()),
    )
    road, other = "C-MOVE", "C-GET" if gets else "no C-GET"
    if bench.profile.retrieve == "get":
        learned.models |= learned.gets
        road, other = "C-GET", "C-MOVE" if moves else "no C-MOVE"
    return _offered(bench, road, other)


def _offered(bench: Bench, road: str, other: str) -> Step:
    models = bench.learned.models
    offered = [f"{model.title()} Root" for model, whole in models.items() if whole]
    if not offered:
        return Step(
            "services",
            Mark.BAD,
            f"the archive offers us no information model with both C-FIND and {road} ({other})",
            f"ask the PACS team to allow {bench.local.title} to query and retrieve in Study Root",
        )
    said = f"C-FIND and {road} in {' and '.join(offered)}; {other}"
    if models[bench.profile.model]:
        return Step("services", Mark.GOOD, said)
    model = next(model for model, whole in models.items() if whole)
    return Step("services", Mark.NOTE, said, f'model = "{model}" in quarry.toml is needed (--save writes it)')


def _connect(bench: Bench, sop_classes: list[str]) -> Requestor:
    return Requestor.connect(
        bench.profile.entity,
        calling=bench.local.title,
        contexts=[(sop_class, [IMPLICIT_LITTLE]) for sop_class in sop_classes],
        connect_timeout=_PATIENCE,
        tls=bench.tls(),
    )
