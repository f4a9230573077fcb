"""``quarry verify --against-archive``: the record compared with what the archive lists now."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import err, fail, out
from dicom_quarry.cli.display.progress_line import ProgressLine, format_files_progress, print_line
from dicom_quarry.cli.display.run_job import run_with_display
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.folder import open_existing
from dicom_quarry.reporting.formatting import format_count
from dicom_quarry.system.durations import format_duration
from dicom_quarry.system.text_safety import escape_text
from dicom_quarry.verification.archive_diff import GONE, NEW, NOT_COMPARED, STUDY_GONE, ArchiveDiff
from dicom_quarry.verification.sampling import parse_share
from dicom_quarry.verification.verifier import FileResult, Verification, VerifyOptions, VerifySummary

#: What the archive lists otherwise, in words.
_CHANGE_DESCRIPTIONS = {
    NEW: "with new instances, {instances}",
    GONE: "of which instances are gone, {instances}",
    STUDY_GONE: "gone from the archive",
    NOT_COMPARED: "could not be compared",
}


def verify_against_archive(folder: Path, *, restart: bool) -> NoReturn:
    """Have every complete study listed again, and say what has changed."""
    list_again = partial(api.compare_with_archive, folder, restart=restart)
    diff = run_with_display(api.load_settings(folder), list_again)
    if diff.is_finished:
        _show_changes(folder, diff)
        raise typer.Exit(1 if diff.changed_studies else 0)
    out.print(f"{diff.studies:,} of {diff.total:,} complete studies listed again: run again to go on")
    if diff.problem:
        fail(diff.problem)
    raise typer.Exit(4)


def _show_changes(folder: Path, diff: ArchiveDiff) -> None:
    same = diff.studies - diff.changed_studies
    out.print(f"{diff.studies:,} complete studies listed again, {same:,} of them as they were")
    for code, description in _CHANGE_DESCRIPTIONS.items():
        if diff.studies_by_code.get(code):
            number = format_count(diff.studies_by_code[code], "study", "studies")
            out.print(
                f"  {number} {description.format(instances=format_count(diff.instances_by_code[code], 'instance'))}"
            )
    if diff.changed_studies:
        out.print(f"{folder / 'changes.csv'} lists them; nothing was moved", markup=False)
    if diff.studies_by_code.get(NEW):
        out.print(f"what to do: quarry retry {folder} --changed  has the new instances sent", markup=False)


#: Damaged files that are named one by one.
_MAX_SHOWN = 20


def verify(
    folder: Annotated[Path, typer.Argument(help="The folder of a job (its --to).")],
    quick: Annotated[bool, typer.Option("--quick", help="Compare sizes only.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="Look at a random part of the files only, such as 1%.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Which part: the one that an earlier sample told of.  [default: drawn]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, max=256, help="Files read at once.  [default: by the processors]")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew, and do not go on with what was interrupted.")
    ] = False,
    against_archive: Annotated[
        bool,
        typer.Option("--against-archive", help="Have complete studies listed again, instead: what changed?"),
    ] = False,
) -> None:
    """Read every file again and compare it with the digest that was recorded when it arrived.

    Interrupted, and run again, it goes on where it was. Exit code 0 if all is as it was, 1 if not, 4 if it
    was interrupted.

    Example:  quarry verify out/
    """
    if seed is not None and sample is None:
        raise ConfigError("--seed says which files a --sample takes: give both")
    if against_archive:
        if quick or sample is not None or threads is not None:
            raise ConfigError("--against-archive reads no files: leave --quick, --sample and --threads out")
        # Imported here: whoever has the files compared asks no archive.

        verify_against_archive(folder, restart=restart)
    share = None if sample is None else parse_share(sample)
    options = VerifyOptions(quick, share, seed, threads, restart)
    _verify_files(folder, options)


def _verify_files(folder: Path, options: VerifyOptions) -> NoReturn:
    printer = _DamagedFilePrinter()
    with Verification(open_existing(folder), options) as verification, _sigterm_as_interrupt():
        _show_start(verification)
        try:
            with ProgressLine() as line:
                verified = verification.run(
                    printer.show, lambda pace: line.show(lambda: format_files_progress(pace))
                )
        except KeyboardInterrupt:
            printer.finish()
            print_line(
                f"interrupted at {verification.files_done:,} files: run the same command again to go on"
            )
            raise typer.Exit(4) from None
        printer.finish()
        list_file = api.write_damaged_list(verification, verified, is_full=options.is_full)
        verification.finish()
    _show_result(folder, options, verification, verified, list_file)
    raise typer.Exit(1 if verified.damaged else 0)


def _show_start(verification: Verification) -> None:
    if verification.interrupted_at is not None:
        ago = format_duration(max(0.0, time.time() - verification.interrupted_at))
        files = format_count(verification.files_done, "file")
        print_line(f"going on where it was left {ago} ago, after {files} (--restart begins anew)")
    sample = verification.sample
    if sample is not None:
        print_line(
            f"a random {100 * sample.share:g} % of the files; the same once more: --seed {sample.seed}"
        )


def _show_result(
    folder: Path,
    options: VerifyOptions,
    verification: Verification,
    verified: VerifySummary,
    list_file: Path | None,
) -> None:
    how = "by size" if options.quick else "by SHA-256"
    out.print(f"{verified.files:,} files compared {how}: {verified.damaged:,} damaged or missing")
    if verified.uncompared:
        out.print(f"{verified.uncompared:,} more were recorded meanwhile: run again to compare these")
    if verified.released:
        out.print(f"{verified.released:,} files of released studies were not looked at")
    if verification.sample is not None:
        out.print(_describe_sample(verified))
    if verified.unrecorded:
        unrecorded = format_count(verified.unrecorded, "file")
        out.print(f"{unrecorded} in the folder that the record does not have: nobody vouches for them")
    if list_file is not None:
        out.print(f"{list_file} lists them", markup=False)
    if verified.damaged:
        out.print(
            f"what to do: quarry retry {folder} --damaged  moves them aside and has them sent again",
            markup=False,
        )


def _describe_sample(verified: VerifySummary) -> str:
    if not verified.files:
        return "no file was chosen, so this says nothing: take a larger part"
    if verified.damaged:
        return "a sample: where some are damaged more may be; a verify without --sample finds all"
    return (
        "a sample does not prove that no file is damaged: with 95 % confidence, "
        f"no more than {verified.max_undetected_damage:,} of the others are"
    )


class _DamagedFilePrinter:
    """Names damaged files one by one, as far as anybody would read on."""

    def __init__(self) -> None:
        self._count = 0

    def show(self, checked: FileResult) -> None:
        """A path may name a patient: elsewhere than on a terminal the SOP Instance UID must do."""
        if not err.is_terminal and not checked.file.sop_uid:
            return  # a stray has none
        self._count += 1
        if self._count <= _MAX_SHOWN:
            name = escape_text(checked.file.path, limit=1000) if err.is_terminal else checked.file.sop_uid
            (out if out.is_terminal else err).print(f"{name} {checked.problem}", markup=False)

    def finish(self) -> None:
        """How many were not named."""
        if self._count > _MAX_SHOWN:
            err.print(f"… and {self._count - _MAX_SHOWN:,} more")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what was compared is remembered."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
