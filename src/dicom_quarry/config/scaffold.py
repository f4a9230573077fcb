"""The scaffold of a first quarry.toml: the settings that a beginner needs, each with a comment. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass

from dicom_quarry.config.settings import DEFAULT_FILEPATH, DEFAULT_LOCAL


@dataclass(frozen=True, slots=True)
class ScaffoldOptions:
    """The known values. Without ``archive`` its lines are comments; ``window`` None means any hour."""

    archive: str = ""
    local: str = DEFAULT_LOCAL
    to: str = "out"
    window: str | None = None
    filepath: str = DEFAULT_FILEPATH
    mail_to: str = ""
    notes: tuple[str, ...] = ()


_TEMPLATE = """\
# Settings of quarry, for every command that runs in this folder. Options of a command override them.
# All settings and their meaning: docs/settings.md
{notes}
# The name of the archive: its table is below.
{off}from = "main"

# Our receiver: AE title and port. The archive has to know both, and this computer's address.
as = {local}

# The output folder, and the pattern of the file names in it.
to = {to}
filepath = {filepath}

{off}[archive.main]
# AE title, address and DICOM port of the archive. Test them with: quarry check --from main
{off}address = {archive}

# Hours in which the archive may be queried, such as "Mon-Fri 19:00-07:00, Sat-Sun 00:00-24:00".
{window}

# Largest number of studies retrieved at the same time.
{off}parallel = 1

# E-mail when a job has ended, or waits for you to act; and the mail server for it.
{quiet}[notify]
{quiet}mail-to = [{mail_to}]
{quiet}smtp = "localhost:25"
"""


def render_config(options: ScaffoldOptions) -> str:
    """Return the text of the file."""
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
        mail_to=_toml_string(options.mail_to or "name@hospital.example"),
    )


def _toml_string(text: str) -> str:
    # A JSON string of ASCII is also a basic string of TOML.
    return json.dumps(text)
