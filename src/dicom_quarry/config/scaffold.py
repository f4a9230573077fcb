"""The first quarry.toml: every setting that a beginner needs, each with a comment. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dicom_quarry.config.settings import DEFAULT_FILEPATH, DEFAULT_LOCAL


@dataclass(frozen=True, slots=True)
class Start:
    """What is known; where ``archive`` is empty its lines stay comments. ``window`` None: at any hour."""

    archive: str = ""
    local: str = DEFAULT_LOCAL
    to: str = "out"
    window: str | None = None
    filepath: str = DEFAULT_FILEPATH
    mail_to: str = ""
    notes: tuple[str, ...] = ()


_TEXT = """\
# Settings of quarry, read by every command that runs in this folder; flags win over them.
# All settings, and what they mean: docs/settings.md
{notes}
# The archive, by the name of its table below.
{off}from = "main"

# Our receiver: AE title and port. The archive has to know them, with this computer's address.
as = {local}

# The folder to fill, and the pattern of the file names in it.
to = {to}
filepath = {filepath}

{off}[archive.main]
# AE title, address and DICOM port of the archive; quarry check --from main tries them.
{off}address = {archive}

# Hours in which the archive may be asked, such as "Mon-Fri 19:00-07:00, Sat-Sun 00:00-24:00".
{window}

# Studies asked for at once, at most.
{off}parallel = 1

# Who is told how a job ended, and that it waits for a person; by which mail server.
{quiet}[notify]
{quiet}mail-to = [{mail_to}]
{quiet}smtp = "localhost:25"
"""


def quarry_toml(start: Start) -> str:
    """The text of the file."""
    off = "" if start.archive else "# "
    window = (
        f"window = {_quoted(start.window)}" if start.window else '# window = "19:00-07:00"   # none: any hour'
    )
    return _TEXT.format(
        notes="".join(f"# Note: {note}\n" for note in start.notes),
        off=off,
        local=_quoted(start.local),
        to=_quoted(start.to),
        filepath=_quoted(start.filepath),
        archive=_quoted(start.archive or "PACS@10.1.2.3:104"),
        window=window,
        quiet="" if start.mail_to else "# ",
        mail_to=_quoted(start.mail_to or "somebody@hospital.example"),
    )


def _quoted(text: str) -> str:
    # A JSON string of ASCII is a basic string of TOML, too.
    return json.dumps(text)
