"""The page for the PACS team: the access that Quarry needs, the load it makes, the way to stop it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dicom_quarry.config.settings import ArchiveProfile, Limits
from dicom_quarry.config.site_policy import DEFAULT_QUERIES_PER_ROW
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus

_TEMPLATE = """\
# Access for a research extraction: {title} and {archive}

To the PACS team. We request access for **Quarry**, a program that fetches the studies of an approved list
from the archive, one after the other, and proves that they are complete. It never sends to the archive.

- project, approval: [name of the study, number of the approval]
- contact: [name, telephone, e-mail]; in the night: [name, telephone]
- from, until: [dates]; about [number] studies

## What we need

| | AE title | address | port |
|---|---|---|---|
| archive | {archive} | {archive_host} | {archive_port} |
| Quarry, this computer ({host}) | {title} | {address} | {port} |

1. **Admit {title}** from {address} for C-ECHO, C-FIND and C-MOVE (Query/Retrieve, Study Root model).
2. **Register {title} as a C-MOVE destination**: host {address}, port {port}{tls_in}.
3. **Firewall** (TCP), a connection in each direction:

| who connects | to | port | for |
|---|---|---|---|
| {address} | {archive_host} | {archive_port} | queries and requests{tls_out} |
| {archive_host}{senders} | {address} | {port} | the images (C-STORE){tls_in} |

If the archive also sends from other addresses than {archive_host}, please send us the list.

## What Quarry does

- C-FIND with a key in every query, never a wildcard; one list of series and instances for each study.
- C-MOVE of a study by its UID; images that have arrived are not requested again.
- After a refusal it waits, longer each time. It offers no asynchronous operations.
- It accepts images from these addresses only, and only those that it requested. Its port is open while
  it runs.

| limit | |
|---|---|
{limits}

## How it is stopped

On {host}, `quarry stop --all` stops after the studies being transferred; with `--now` they are
cancelled (C-CANCEL). It is safe to end the process at any time, or to remove {title} from the archive:
the run continues later where it stopped. Or call the contact above.
"""


def render_access_request(
    context: CheckContext, limits: Sequence[Limits], host: str, steps: Iterable[CheckStep]
) -> str:
    """Return the page in Markdown.

    ``limits`` are the archive's and the site's, ``host`` is the name of this computer. Failed ``steps`` are
    listed.
    """
    profile, local = context.profile, context.local
    text = _TEMPLATE.format(
        title=local.title,
        port=local.port,
        address=local.host or context.findings.our_address or "[address of this computer]",
        host=host,
        archive=profile.dimse_ae.title,
        archive_host=profile.dimse_ae.host,
        archive_port=profile.dimse_ae.port,
        senders="".join(f", {network}" for network in context.findings.senders or profile.senders),
        tls_out=" (TLS)" if profile.tls != "none" else "",
        tls_in=" (TLS)" if profile.tls == "both" else "",
        limits="\n".join(_limit_rows(profile, limits, context.settings.parallel)),
    )
    failed = [step for step in steps if step.status is StepStatus.BAD]
    if not failed:
        return text
    lines = [
        f"- {step.name}: {step.message}" + (f". To do: {step.remedy}" if step.remedy else "")
        for step in failed
    ]
    return "\n".join([text, "## What `quarry check` found", "", *lines, ""])


def _limit_rows(profile: ArchiveProfile, limits: Sequence[Limits], parallel: int) -> Iterable[str]:
    """Return a table row for each limit: all time windows, and the lowest of each rate."""
    windows = list(dict.fromkeys(one.window for one in limits if one.window))
    yield f"| hours | {' and within '.join(windows) or 'any: please name the hours if you want a limit'} |"
    ceilings = [one.parallel for one in limits if one.parallel]
    yield f"| studies at once | {min([parallel, *ceilings])} |"
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
