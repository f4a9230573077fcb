"""The first quarry.toml: every setting that a beginner needs, each with a comment. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dicom_quarry.config.settings import DEFAULT_FILEPATH, DEFAULT_LOCAL


@dataclass(frozen=True, slots=True)
class ScaffoldOptions:
    """What is known; where ``archive`` is empty its lines stay comments. ``window`` None: at any hour."""

    archive: str = ""
    local: str = DEFAULT_LOCAL
    to: str = "out"
    window: str | None = None
    filepath: str = DEFAULT_FILEPATH
    mail_to: str = ""
    notes: tuple[str, ...] = ()


_TEMPLATE = """\
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


def render_config(options: ScaffoldOptions) -> str:
    """The text of the file."""
    off = "" if options.archive else "# "
    window = (
        f"window = {_toml_string(options.window)}"
        if options.window
        else '# window = "19:00-07:00"   # none: any hour'
    )
    return _TEMPLATE.format(
        notes="".join(f"# Note: {note}\n" for note in options.notes),
        off=off,
        local=_toml_string(options.local),
        to=_toml_string(options.to),
        filepath=_toml_string(options.filepath),
        archive=_toml_string(options.archive or "PACS@10.1.2.3:104"),
        window=window,
        quiet="" if options.mail_to else "# ",
        mail_to=_toml_string(options.mail_to or "somebody@hospital.example"),
    )


def _toml_string(text: str) -> str:
    # A JSON string of ASCII is a basic string of TOML, too.
    return json.dumps(text)
