"""Checks of the network and the archive's services: name, port, association, C-ECHO, offered SOP classes."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.archive.dimse.identifier import IMPLICIT_LITTLE, MODELS, InformationModel
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.errors import ArchiveError, ConnectionLost, QueryFailed, Rejected
from dicom_quarry.model import Transport
from dicom_quarry.wire import error_messages
from dicom_quarry.wire.dimse import VERIFICATION
from dicom_quarry.wire.requestor import Requestor

_CONNECT_TIMEOUT = 10.0


def check_network(context: CheckContext) -> Iterator[CheckStep]:
    """Run the steps up to the first failure, as each needs those before it."""
    for check in (check_host_name, check_archive_port, _check_association, _check_echo, _check_services):
        step = check(context)
        if step is None:
            continue
        yield step
        if step.status is StepStatus.BAD:
            return


def check_host_name(context: CheckContext) -> CheckStep | None:
    """Resolve the name of the archive's host; None where the settings have its address."""
    peer = context.profile.addresses[0]
    if _is_address(peer.host):
        return None
    try:
        found = socket.getaddrinfo(peer.host, peer.port, type=socket.SOCK_STREAM)
    except OSError as error:
        message = error_messages.describe_connect_error(peer.host, peer.port, _CONNECT_TIMEOUT, error)
        return CheckStep(
            "name", StepStatus.BAD, message, "correct --from, or ask the PACS team for the archive's address"
        )
    addresses = list(dict.fromkeys(str(address[0]) for *_, address in found))
    return CheckStep("name", StepStatus.GOOD, f"{peer.host} resolves to {', '.join(addresses)}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_archive_port(context: CheckContext) -> CheckStep:
    """Check that the archive's port accepts connections, and find our address."""
    peer = context.profile.addresses[0]
    try:
        with socket.create_connection((peer.host, peer.port), _CONNECT_TIMEOUT) as connection:
            context.findings.our_address = str(connection.getsockname()[0])
    except OSError as error:
        context.findings.our_address = find_our_address(peer.host, peer.port)
        remedy = (
            "if address and port are right, ask the network team to allow connections from "
            f"{context.findings.our_address or 'this computer'} to {peer.host}, TCP port {peer.port}"
        )
        return CheckStep(
            "port",
            StepStatus.BAD,
            error_messages.describe_connect_error(peer.host, peer.port, _CONNECT_TIMEOUT, error),
            remedy,
        )
    message = (
        f"{peer.host}:{peer.port} accepts connections. "
        f"This computer's address is {context.findings.our_address}"
    )
    return CheckStep("port", StepStatus.GOOD, message)


def find_our_address(host: str, port: int) -> str:
    """Return the address from which packets to the archive would leave, without sending one."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((host, port))
            return str(route.getsockname()[0])
    except OSError:
        return ""


def _check_association(context: CheckContext) -> CheckStep:
    title, peer = context.local.title, context.profile.dimse_ae
    try:
        _connect(context, [VERIFICATION]).release()
    except Rejected as error:
        remedy = f"ask the PACS team to admit {title} from {context.findings.our_address} to {peer.title}"
        return CheckStep(
            "association", StepStatus.BAD, str(error), remedy if error.permanent else "try again later"
        )
    except ArchiveError as error:
        tls = (
            "ask the PACS team for the archive's port for TLS, and which TLS profile it uses"
            if context.profile.tls != "none"
            else ""
        )
        return CheckStep("association", StepStatus.BAD, str(error), tls)
    return CheckStep("association", StepStatus.GOOD, f"accepted (archive {peer.title}, our AE title {title})")


def _check_echo(context: CheckContext) -> CheckStep:
    archive = context.open_archive(context.profile.model)
    try:
        archive.echo()
    except (Rejected, ConnectionLost, QueryFailed) as error:
        return _echo_refused_step(context, archive, error)
    except ArchiveError as error:
        return CheckStep("C-ECHO", StepStatus.BAD, str(error))
    finally:
        archive.close()
    return CheckStep("C-ECHO", StepStatus.GOOD, "answered")


def _echo_refused_step(context: CheckContext, archive: DimseArchive, error: ArchiveError) -> CheckStep:
    """Describe an archive that refuses C-ECHO; it can be used all the same if it accepts queries."""
    remedy = f"ask the PACS team to allow C-ECHO to {context.local.title}"
    try:
        archive.probe()
    except ArchiveError:
        return CheckStep("C-ECHO", StepStatus.BAD, str(error), remedy)
    return CheckStep("C-ECHO", StepStatus.NOTE, f"{error}. Quarry can work without it", remedy)


def _check_services(context: CheckContext) -> CheckStep:
    """Propose the SOP classes of queries and retrievals, and use none of them yet.

    Those of a method that the site does not allow are not proposed.
    """
    allowed = [one for one in (Transport.MOVE, Transport.GET) if context.profile.allows(one)]
    try:
        requestor = _connect(
            context,
            [
                uid
                for model in MODELS.values()
                for uid in (model.find, *(_sop_class(model, transport) for transport in allowed))
            ],
        )
    except ArchiveError as error:
        return CheckStep("services", StepStatus.BAD, str(error))
    requestor.release()
    if context.uses_get_alone:
        allowed.reverse()
    findings, accepted = context.findings, requestor.accepted
    for name, model in MODELS.items():
        findings.get_models[name] = model.find in accepted and model.get in accepted
        needed = (_sop_class(model, transport) for transport in allowed[:1])
        findings.usable_models[name] = model.find in accepted and all(uid in accepted for uid in needed)
    others = [
        transport.label
        if any(_sop_class(model, transport) in accepted for model in MODELS.values())
        else f"no {transport.label}"
        for transport in allowed[1:]
    ]
    return _services_step(context, ["C-FIND", *(one.label for one in allowed[:1])], others)


def _sop_class(model: InformationModel, transport: Transport) -> str:
    return model.get if transport is Transport.GET else model.move


def _services_step(context: CheckContext, services: list[str], others: list[str]) -> CheckStep:
    models = context.findings.usable_models
    offered = [f"{model.title()} Root" for model, is_offered in models.items() if is_offered]
    needed = " and ".join(services)
    if not offered:
        return CheckStep(
            "services",
            StepStatus.BAD,
            f"the archive offers us no information model with {'both ' * (len(services) - 1)}{needed}"
            + "".join(f" ({other})" for other in others),
            f"ask the PACS team to allow {context.local.title} to query and retrieve in Study Root",
        )
    message = f"{needed} in {' and '.join(offered)}" + "".join(f"; {other}" for other in others)
    if models[context.profile.model]:
        return CheckStep("services", StepStatus.GOOD, message)
    model = next(model for model, whole in models.items() if whole)
    return CheckStep(
        "services", StepStatus.NOTE, message, f'model = "{model}" in quarry.toml is needed (--save writes it)'
    )


def _connect(context: CheckContext, sop_classes: list[str]) -> Requestor:
    return Requestor.connect(
        context.profile.dimse_ae,
        calling=context.local.title,
        contexts=[(sop_class, [IMPLICIT_LITTLE]) for sop_class in sop_classes],
        connect_timeout=_CONNECT_TIMEOUT,
        tls=context.tls(),
    )
