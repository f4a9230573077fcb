"""``quarry status``: where a job stands, from another terminal or afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dicom_quarry.cli.console import out
from dicom_quarry.extraction.folder import JobFolder, existing, holder
from dicom_quarry.ledger.reading import Counts, Reader
from dicom_quarry.model import Word
from dicom_quarry.report import human_size, spoken_time


def status(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Show where a job stands.

    Exit code 0 every row complete, 1 finished with exceptions, 4 not finished.

    Example:  quarry status out/
    """
    found = existing(folder)
    reader = Reader(found.ledger)
    try:
        counts = reader.counts()
    finally:
        reader.close()
    process = holder(found)
    live = _live(found) if process else {}
    if as_json:
        print(json.dumps(_facts(counts, process, live), indent=2))
    else:
        _show(counts, process, live)
    raise typer.Exit(_exit_code(counts))


def _exit_code(counts: Counts) -> int:
    if not counts.finished:
        return 4
    return 0 if set(counts.rows_by_word) <= {Word.COMPLETE} else 1


def _live(folder: JobFolder) -> dict[str, Any]:
    """What the running job said last; nothing in its first moments."""
    try:
        live: dict[str, Any] = json.loads(folder.progress.read_text())
    except (OSError, ValueError):
        return {}
    return live


def _facts(counts: Counts, process: int | None, live: dict[str, Any]) -> dict[str, object]:
    return {
        "running": process is not None,
        "process": process,
        "finished": counts.finished,
        "rows": counts.rows,
        "rows_by_outcome": dict(counts.rows_by_word),
        "studies": counts.studies,
        "studies_complete": counts.studies_complete,
        "instances_expected": counts.instances_expected,
        "instances_stored": counts.instances_stored,
        "bytes": counts.size,
        "bytes_per_second": live.get("bytes_per_second"),
        "seconds_left": live.get("seconds_left"),
        "waiting_for": live.get("waiting") or None,
        "moving": live.get("moving", []),
    }


def _show(counts: Counts, process: int | None, live: dict[str, Any]) -> None:
    if process:
        out.print(f"running (process {process})")
    else:
        out.print("finished" if counts.finished else "not running, not finished: run the same command again")
    for word, count in counts.rows_by_word.items():
        out.print(f"  {count:>9,} rows {word.replace('_', ' ')}")
    out.print(
        f"{counts.studies_complete:,} of {counts.studies:,} studies complete, "
        f"{counts.instances_stored:,} instances, {human_size(counts.size)}"
    )
    for moving in live.get("moving", []):
        out.print(f"  row {moving['row']}: {moving['stored']:,} of {moving['listed']:,} instances")
    if live.get("waiting"):
        out.print(f"waiting for {live['waiting']}")
    if live.get("seconds_left") is not None:
        out.print(
            f"{human_size(round(live['bytes_per_second']))}/s, {spoken_time(live['seconds_left'])} left"
        )
