"""The end of a job in a few lines: what came out, what did not, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.ledger.schema import DONE, FAILED, TO_DO
from dicom_quarry.ledger.views import RowView, StudyView
from dicom_quarry.model import Outcome, Word
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.reporting.formatting import counted, human_size

#: How many rows of one kind are named; report.csv has the others.
SHOWN = 20

#: What a person has to remove: told of every study.
_MUST_GO = "excluded_but_stored"

_STYLES = {Word.COMPLETE: "green", Word.PENDING: "cyan", Word.FAILED: "red"}
_MEANINGS = {
    0: "every row is complete",
    1: "finished; the exceptions are explained above",
    4: "not finished: run the same command again to go on",
}


@dataclass(slots=True)
class Exceptions:
    """The rows that ended, or wait, for the same reason; the first of them with their sentences."""

    word: Word
    code: str
    next_step: str
    count: int = 0
    rows: list[tuple[int, str]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The reason without anything that could name a patient."""
        entry = CATALOGUE.get(self.code)
        return entry.title if entry else self.code


@dataclass(frozen=True, slots=True)
class Summary:
    """What a job came to: ``words`` counts rows; a study counts once, however many rows share it.

    ``refused`` instances were sent and not taken: nobody had asked for them, or they were damaged.
    ``hand_overs`` counts complete studies by how far the command of on-complete has come; ``released`` went
    elsewhere.
    """

    rows: int
    words: tuple[tuple[Word, int], ...]
    studies: int
    studies_complete: int
    instances: int
    size: int
    exceptions: tuple[Exceptions, ...]
    refused: int = 0
    hand_overs: Mapping[str, int] = field(default_factory=dict)
    released: int = 0

    @property
    def exit_code(self) -> int:
        """0 every row complete, 1 finished with exceptions, 4 not finished."""
        words = {word for word, _ in self.words}
        if Word.PENDING in words or self.hand_overs.get(TO_DO):
            return 4
        return 1 if words - {Word.COMPLETE} or self.hand_overs.get(FAILED) else 0

    @property
    def meaning(self) -> str:
        """The exit code in words."""
        return _MEANINGS[self.exit_code]


def summarise(rows: Iterable[RowView], studies: Iterable[StudyView], refused: int = 0) -> Summary:
    """Count what the ledger tells; each view is looked at once and let go."""
    words: dict[Word, int] = {}
    groups: dict[str, Exceptions] = {}
    for row in rows:
        outcome = row.outcome
        words[outcome.word] = words.get(outcome.word, 0) + 1
        if outcome.word is Word.COMPLETE or outcome.code == _MUST_GO:
            continue
        count_exception(groups, row.row, outcome)
    number = complete = instances = size = released = 0
    handed: Counter[str] = Counter()
    for view in studies:
        number += 1
        complete += view.outcome.word is Word.COMPLETE
        instances += view.stored
        size += view.size
        if view.outcome.code == _MUST_GO:
            # Whatever else became of the row: of several studies the worst would speak for it.
            for each in view.rows:
                count_exception(groups, each, view.outcome)
        released += view.released_at is not None
        handed.update([view.hand_over] if view.hand_over else [])
    counts = tuple((word, words[word]) for word in Word if word in words)
    return Summary(
        sum(words.values()),
        counts,
        number,
        complete,
        instances,
        size,
        largest_first(groups),
        refused,
        handed,
        released,
    )


def count_exception(groups: dict[str, Exceptions], row: int, outcome: Outcome) -> None:
    """Put a row with those that ended for the same reason."""
    group = groups.setdefault(outcome.code, Exceptions(outcome.word, outcome.code, outcome.next_step))
    group.count += 1
    if len(group.rows) < SHOWN:
        group.rows.append((row, outcome.reason))


def largest_first(groups: dict[str, Exceptions]) -> tuple[Exceptions, ...]:
    """The most frequent reasons first."""
    return tuple(sorted(groups.values(), key=lambda group: (-group.count, group.code)))


def summary_lines(summary: Summary, report: Path | None = None) -> list[str]:
    """Plain lines, for a file or a pipe: rows by their number, nothing that could name a patient."""
    words = ", ".join(f"{count:,} {_words(word)}" for word, count in summary.words)
    lines = [f"{counted(summary.rows, 'row')}: {words}" if words else "no rows", _amounts(summary)]
    for group in summary.exceptions:
        lines.extend(plain_lines(group))
    lines.extend(_elsewhere(summary))
    if report is not None:
        lines.append(f"report: {report}")
    lines.append(f"{summary.meaning} (exit code {summary.exit_code})")
    return lines


def render_summary(summary: Summary, report: Path | None = None) -> RenderableType:
    """For a terminal, where the sentences may quote what the user's table says."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right")
    table.add_column()
    for word, count in summary.words:
        table.add_row(f"{count:,}", Text(_words(word), style=_style(word)))
    parts: list[RenderableType] = [Text(counted(summary.rows, "row"), style="bold"), table]
    parts.append(Text(_amounts(summary)))
    for group in summary.exceptions:
        parts.extend(paragraph(group))
    parts.extend(Text(line) for line in _elsewhere(summary))
    if report is not None:
        parts.append(Text(f"report: {report}"))
    parts.append(Text(summary.meaning, style="bold"))
    return Group(*parts)


def paragraph(group: Exceptions) -> Sequence[Text]:
    """Rows that ended for the same reason, for a terminal."""
    head = f"\n{_words(group.word)}, {counted(group.count, 'row')}: {group.title}"
    lines = [Text(head, style=_style(group.word))]
    # What has not ended has nothing to explain yet.
    if group.word is not Word.PENDING:
        lines += [Text(f"  row {row}: {visible(reason, limit=300)}") for row, reason in group.rows]
        if group.count > len(group.rows):
            lines.append(Text(f"  … and {group.count - len(group.rows):,} more"))
    if group.next_step:
        lines.append(Text(f"  what to do: {visible(group.next_step, limit=300)}", style="italic"))
    return lines


def plain_lines(group: Exceptions) -> list[str]:
    """The same for a file or a pipe: rows by their number."""
    lines = [f"{_words(group.word)}, {counted(group.count, 'row')} ({group.code}): {group.title}"]
    lines.append(f"  {_row_numbers(group)}")
    if group.next_step:
        lines.append(f"  what to do: {visible(group.next_step, limit=300)}")
    return lines


def _amounts(summary: Summary) -> str:
    studies = counted(summary.studies, "study", "studies")
    text = (
        f"{studies}, {summary.studies_complete:,} of them complete; "
        f"{counted(summary.instances, 'instance')} stored, {human_size(summary.size)}"
    )
    return f"{text}; {counted(summary.refused, 'instance')} refused" if summary.refused else text


def _elsewhere(summary: Summary) -> list[str]:
    """What became of complete studies afterwards."""
    lines = []
    if summary.hand_overs:
        states = ((DONE, "done"), (TO_DO, "not done yet"), (FAILED, "failed"))
        told = [
            f"{summary.hand_overs[state]:,} {name}" for state, name in states if state in summary.hand_overs
        ]
        lines.append(f"on-complete: {', '.join(told)}")
    if summary.hand_overs.get(FAILED):
        lines.append("  what to do: see studies.csv for how it failed; quarry retry runs it again")
    if summary.released:
        lines.append(f"{counted(summary.released, 'study', 'studies')} released: the data went elsewhere")
    return lines


def _row_numbers(group: Exceptions) -> str:
    numbers = ", ".join(str(row) for row, _ in group.rows)
    more = group.count - len(group.rows)
    return f"row{'s' if group.count > 1 else ''} {numbers}" + (f" and {more:,} more" if more else "")


def _words(word: Word) -> str:
    return "invalid" if word is Word.INVALID_ROW else word.replace("_", " ")


def _style(word: Word) -> str:
    return _STYLES.get(word, "yellow")
