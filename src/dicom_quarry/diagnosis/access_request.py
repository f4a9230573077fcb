"""The page for the PACS team: the access that Quarry needs, the load it makes, the way to stop it.

Every sentence follows the settings in force: methods of retrieval that are not used, or that the site does
not allow, are not requested.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dicom_quarry.config.archive_profile import ArchiveProfile, Limits
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import DEFAULT_QUERIES_PER_ROW
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.diagnosis.network_checks import find_our_address
from dicom_quarry.model import Transport
from dicom_quarry.scheduling.throttle import count_query_threads

_TEMPLATE = """\
# Access for a research extraction: {title} and {archive}

To the PACS team. We request access for **Quarry**, a program that fetches the studies of an approved list
from the archive, {order}, and proves that they are complete. It never sends to the archive.

- project, approval: [name of the study, number of the approval]
- contact: [name, telephone, e-mail]; in the night: [name, telephone]
- from, until: [dates]; about [number] studies

## What we need

{needs}

## What Quarry does

{actions}

| limit | |
|---|---|
{limits}

## How it is stopped

On {host}, `quarry stop --all` stops after the studies being transferred; with `--now` they are
cancelled{cancelled}. It is safe to end the process at any time, or to {remove} from the archive:
the run continues later where it stopped. Or call the contact above.
"""


@dataclass(frozen=True, slots=True)
class _Letter:
    """The parts of the page, for one archive; ``address`` is this computer's."""

    profile: ArchiveProfile
    settings: Settings
    address: str
    host: str
    senders: Sequence[str]
    limits: Sequence[Limits]

    @property
    def parallel(self) -> int:
        """The largest number of studies at once."""
        return min([self.settings.parallel, *(one.parallel for one in self.limits if one.parallel)])

    def uses(self, transport: Transport) -> bool:
        """Return whether a method of retrieval is used, or tried after another."""
        return transport in self.profile.transports

    def needs(self) -> Iterator[str]:
        """Yield the lines of the first section: applications, steps for the PACS team, connections."""
        title, port = self.settings.local.title, self.settings.local.port
        if (archive := self.profile.address) is not None:
            yield "| | AE title | address | port |"
            yield "|---|---|---|---|"
            yield f"| archive | {archive.title} | {archive.host} | {archive.port} |"
            ours = port if self.uses(Transport.MOVE) else "none is opened"
            yield f"| Quarry, this computer ({self.host}) | {title} | {self.address} | {ours} |"
            yield ""
        steps = [*self._dimse_steps(), *self._web_steps(), "**Firewall** (TCP):"]
        yield from (f"{number}. {step}" for number, step in enumerate(steps, start=1))
        yield ""
        yield "| who connects | to | port | for |"
        yield "|---|---|---|---|"
        yield from self._connections()
        if self.uses(Transport.MOVE) and archive is not None:
            yield ""
            others = f"other addresses than {archive.host}"
            yield f"If the archive also sends from {others}, please send us the list."

    def _dimse_steps(self) -> Iterator[str]:
        if self.profile.address is None:
            return
        title, port = self.settings.local.title, self.settings.local.port
        moves, gets = self.uses(Transport.MOVE), self.uses(Transport.GET)
        services = ["C-ECHO", "C-FIND", *(["C-MOVE"] if moves else []), *(["C-GET"] if gets else [])]
        model = f"Query/Retrieve, {self.profile.model.title()} Root model"
        yield f"**Admit {title}** from {self.address} for {_join(services)} ({model})."
        if moves:
            tls = " (TLS)" if self.profile.tls == "both" else ""
            yield (
                f"**Register {title} as a C-MOVE destination**: host {self.address}, port {port}{tls}."
                + (" C-GET is only for what C-MOVE does not deliver." if gets else "")
            )
        elif gets:
            yield (
                "**No C-MOVE destination** and no port of ours is needed: the images come by C-GET, over the "
                "association that Quarry opens."
            )

    def _web_steps(self) -> Iterator[str]:
        if self.profile.dicomweb is not None:
            yield (
                f"**Allow requests** (GET alone) from {self.address} to {self.profile.dicomweb}, for "
                f"{self._web_purpose()}; and an account or a token that may read, if the server wants one."
            )

    def _web_purpose(self) -> str:
        """Return what the web services are used for: searches go over DIMSE if there is an AE title."""
        return "images (WADO-RS)" if self.profile.address else "searches (QIDO-RS) and images (WADO-RS)"

    def _connections(self) -> Iterator[str]:
        profile, local = self.profile, self.settings.local
        if (archive := profile.address) is not None:
            images = " and the images (C-GET)" if profile.transports == (Transport.GET,) else ""
            tls = " (TLS)" if profile.tls != "none" else ""
            purpose = f"queries and requests{images}{tls}"
            yield f"| {self.address} | {archive.host} | {archive.port} | {purpose} |"
            if self.uses(Transport.MOVE):
                tls = " (TLS)" if profile.tls == "both" else ""
                senders = ", ".join([archive.host, *self.senders])
                yield f"| {senders} | {self.address} | {local.port} | the images (C-STORE){tls} |"
        if (web := profile.dicomweb) is not None:
            yield f"| {self.address} | {web.host} | {web.port} | {self._web_purpose()} |"

    def actions(self) -> Iterator[str]:
        """Yield what Quarry sends, one item of a list each."""
        web_alone = self.profile.address is None
        query = "A search (QIDO-RS)" if web_alone else "C-FIND"
        yield f"{query} with a key in every query{self._wildcards()}."
        if self.settings.whole_patients:
            yield "All studies of a patient, for a row with the patient alone (`whole-patients`)."
        else:
            yield "Never all studies of a patient, unless the list names each of them."
        yield "One list of series and instances for each study."
        if self.settings.diagnosis:
            yield "For a row without a match, up to five more queries for the reason, such as another date."
        names = _join([one.label for one in self.profile.transports], "or")
        yield f"{names} of a study by its UID; images that have arrived are not requested again."
        after = "" if web_alone else " It offers no asynchronous operations."
        yield f"After a refusal it waits, longer each time.{after}"
        if self.uses(Transport.MOVE):
            yield (
                "It accepts images from these addresses only, and only those that it requested. Its port is "
                "open while it runs."
            )
        else:
            yield "It opens no port, and stores only what it requested."

    def _wildcards(self) -> str:
        conditions = [one for one in self.settings.where if "*" in one or "?" in one]
        if self.settings.allow_wildcards:
            return "; **wildcards are allowed** (`allow-wildcards`): \\* and ? in the list match any text"
        if conditions:
            shown = _join([f"`{one}`" for one in conditions])
            return f", never a wildcard, but in the condition {shown}"
        return ", never a wildcard"

    def limit_rows(self) -> Iterator[str]:
        """Yield a table row for each limit: all time windows, and the lowest of each rate."""
        profile, limits = self.profile, self.limits
        yield f"| hours | {self._hours()} |"
        yield f"| studies at once | {self.parallel} |"
        if profile.address is not None:
            queries = count_query_threads(self.parallel)
            total = queries + self.parallel
            yield f"| associations at once | {total}: {queries} for queries, {self.parallel} for retrievals |"
        for name, label in (
            ("queries_per_second", "queries a second"),
            ("studies_per_hour", "studies an hour"),
            ("megabytes_per_second", "MB a second"),
        ):
            rates = [rate for one in limits if (rate := getattr(one, name)) is not None]
            yield f"| {label} | {f'{min(rates):g}' if rates else 'none: please name one if you want it'} |"
        own = profile.max_queries_per_row or DEFAULT_QUERIES_PER_ROW
        row_limits = [one.max_queries_per_row for one in limits if one.max_queries_per_row]
        yield f"| queries for the studies of one row, if answers are cut short | {min([own, *row_limits])} |"
        yield f"| a query is given up after | {profile.query_timeout:g} s of silence |"
        yield f"| a retrieval is given up after | {profile.silence:g} s of silence |"

    def _hours(self) -> str:
        windows = list(
            dict.fromkeys(
                one.window + (f" ({one.time_zone})" if one.time_zone else "")
                for one in self.limits
                if one.window
            )
        )
        if not windows:
            return "any: please name the hours if you want a limit"
        ends = [one for one in self.limits if one.after_window != "finish"]
        cancelled = min(ends, key=lambda one: one.grace_seconds).after_window if ends else ""
        rest = f"is cancelled {cancelled} later" if cancelled else "is finished"
        return f"{' and within '.join(windows)}; a study in transfer at the end {rest}"


def render_access_request(
    context: CheckContext, limits: Sequence[Limits], host: str, steps: Iterable[CheckStep]
) -> str:
    """Return the page in Markdown.

    ``limits`` are the archive's and the site's, ``host`` is the name of this computer. Failed ``steps`` are
    listed.
    """
    profile, local = context.profile, context.local
    senders = [str(one) for one in context.findings.senders or profile.senders]
    peer = profile.addresses[0]
    found = context.findings.our_address or find_our_address(peer.host, peer.port)
    address = local.host or found or "[address of this computer]"
    letter = _Letter(profile, context.settings, address, host, senders, limits)
    at_once = "one after the other" if letter.parallel == 1 else f"{letter.parallel} at a time"
    by_dimse = profile.address is not None
    text = _TEMPLATE.format(
        title=local.title if by_dimse else "Quarry",
        archive=profile.address.title if profile.address is not None else profile.dicomweb_uri,
        order=at_once,
        host=host,
        needs="\n".join(letter.needs()),
        actions="\n".join(f"- {one}" for one in letter.actions()),
        limits="\n".join(letter.limit_rows()),
        cancelled=" (C-CANCEL)" if by_dimse else "",
        remove=f"remove {local.title}" if by_dimse else "remove its access",
    )
    failed = [step for step in steps if step.status is StepStatus.BAD]
    if not failed:
        return text
    lines = [
        f"- {step.name}: {step.message}" + (f". To do: {step.remedy}" if step.remedy else "")
        for step in failed
    ]
    return "\n".join([text, "## What `quarry check` found", "", *lines, ""])


def _join(words: Sequence[str], last: str = "and") -> str:
    return f" {last} ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
