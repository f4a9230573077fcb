"""``quarry verify``: compare the stored files with the record, or the record with the archive."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicom_quarry import api
from dicom_quarry.api import FileResult, OpenVerification, VerifyOptions, VerifySummary
from dicom_quarry.cli import options
from dicom_quarry.cli.chosen_folder import choose_folder
from dicom_quarry.cli.console import err, fail, out
from dicom_quarry.cli.display.progress_line import ProgressLine, print_line
from dicom_quarry.cli.display.proof import verify_with_proof
from dicom_quarry.errors import ConfigError

#: Damaged files that are named one by one.
_MAX_SHOWN = 20

_MAX_PATH_SHOWN = 1000


def verify(
    folder: options.FolderOrDefault = None,
    quick: Annotated[bool, typer.Option("--quick", help="Compare file sizes only.")] = False,
    sample: Annotated[
        str | None, typer.Option(help="Read a random part of the files only, such as 1%.")
    ] = None,
    seed: Annotated[
        str | None, typer.Option(help="Repeat the sample with this seed.  [default: a new sample]")
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Files read at once, on this computer.  [default: by processors]"),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Start over instead of continuing an interrupted verify.")
    ] = False,
    against_archive: Annotated[
        bool,
        typer.Option("--against-archive", help="Instead: list complete studies again and show changes."),
    ] = False,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Compare with this manifest.csv.gz.  [default: the job's record, else the folder's manifest]"
        ),
    ] = None,
    proof: Annotated[
        bool,
        typer.Option("--proof", help="Also check proof.json: manifest, counts and audit log."),
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --proof: check its signature with this key, a PEM file."),
    ] = None,
    trust_owner: options.TrustOwner = False,
) -> None:
    """Compare the stored files with the record.

    Reads every file and compares it with the checksum recorded when it arrived. In a folder
    without the job's record, its manifest.csv.gz is used. Run again after an interruption it continues.
    The files of job:NAME are compared by the workers of the database, if there are any.

    Exit codes: 0 all files are unchanged; 1 some are damaged or missing, or the proof does not hold; 4
    interrupted.

    Examples:
      quarry verify out/
      quarry verify out/ --proof
      quarry verify out/ --against-archive
    """
    if seed is not None and sample is None:
        raise ConfigError("--seed repeats a --sample: give both")
    if public_key is not None and not proof:
        raise ConfigError("--public-key checks the signature of a proof: add --proof")
    if against_archive:
        if quick or proof or sample is not None or threads is not None or manifest is not None:
            raise ConfigError(
                "--against-archive reads no files: leave --quick, --sample, --threads, --manifest and "
                "--proof out"
            )
        _verify_against_archive(choose_folder(folder), restart=restart, trust_owner=trust_owner)
    share = None if sample is None else api.parse_share(sample)
    if folder is None and _is_handed_over(Path()):
        folder = Path()
    chosen = choose_folder(folder)
    options = VerifyOptions(quick, share, seed, threads, restart, manifest)
    if proof:
        holds = verify_with_proof(chosen, manifest, public_key, lambda: _verify_files(chosen, options))
    else:
        holds = _verify_files(chosen, options)
    raise typer.Exit(0 if holds else 1)


def _is_handed_over(folder: Path) -> bool:
    """Return True for a folder with a manifest and without a job's record."""
    return (folder / api.MANIFEST_NAME).is_file() and not (folder / ".quarry").exists()


def _verify_against_archive(folder: Path, *, restart: bool, trust_owner: bool) -> NoReturn:
    # Imported here: the comparison of files needs neither archive nor job.
    from dicom_quarry.cli.display.run_job import run_with_display

    compare = partial(api.compare_with_archive, folder, restart=restart)
    settings = api.load_job_settings(folder, trust_owner=trust_owner)
    diff = run_with_display(settings, compare, continues=True)
    if diff.is_finished:
        for line in api.archive_diff_lines(folder, diff):
            out.print(line)
        raise typer.Exit(1 if diff.changed_studies else 0)
    out.print(
        f"Interrupted: {api.format_part(diff.studies, diff.total, 'complete study')} compared. "
        "Run the same command again to continue"
    )
    if diff.problem:
        fail(diff.problem)
    raise typer.Exit(4)


def _verify_files(folder: Path, options: VerifyOptions) -> bool:
    """Compare the files; return whether all that were compared are as recorded."""
    printer = _DamagedFilePrinter()
    with api.open_verification(folder, options) as verification, _sigterm_as_interrupt():
        _show_start(verification)
        let_go = False
        try:
            with ProgressLine() as line:
                verified = verification.run(
                    printer.show, lambda progress: line.show(lambda: api.format_files_progress(progress))
                )
        except KeyboardInterrupt:
            verified, let_go = None, verification.is_with_workers
        printer.finish()
        if verified is None:
            _show_interruption(verification, let_go=let_go)
            raise typer.Exit(4)
        list_file = api.write_damaged_list(verification, verified, is_full=options.is_full)
        api.record_verification(verification, verified, is_quick=options.quick)
        verification.finish()
    _show_result(folder, options, verification, verified, list_file)
    return not verified.damaged


def _show_interruption(verification: OpenVerification, *, let_go: bool) -> None:
    done = api.format_count(verification.files_done, "file")
    if let_go:
        label = verification.folder.label
        print_line(
            f"Let go after {done}: the workers go on. Run the same command again to see how far they are. To "
            f"stop them:  quarry stop {label}"
        )
    else:
        print_line(f"Interrupted after {done}. Run the same command again to continue")


def _show_start(verification: OpenVerification) -> None:
    if verification.manifest is not None:
        written = datetime.fromtimestamp(verification.manifest.stat().st_mtime).astimezone()
        files = api.format_count(verification.totals.files, "file")
        print_line(
            f"Comparing with {verification.manifest} of {written:%Y-%m-%d %H:%M} ({files}), "
            "not with a job's record"
        )
    if verification.interrupted_at is not None:
        ago = api.format_duration(max(0.0, time.time() - verification.interrupted_at))
        files = api.format_count(verification.files_done, "file")
        print_line(f"Resuming after {files} (interrupted {ago} ago). --restart starts over")
    if verification.remark:
        print_line(verification.remark)
    sample = verification.sample
    if sample is not None:
        print_line(
            f"Random sample of {100 * sample.share:g} % of the files. To repeat it: --seed {sample.seed}"
        )


def _show_result(
    folder: Path,
    options: VerifyOptions,
    verification: OpenVerification,
    verified: VerifySummary,
    list_file: Path | None,
) -> None:
    method = "by size" if options.quick else "by SHA-256"
    files = api.format_count(verified.files, "file")
    out.print(f"{files} compared {method}: {verified.damaged:,} damaged or missing")
    if verified.uncompared:
        out.print(f"{verified.uncompared:,} more arrived meanwhile. Run again to compare them")
    if verified.released:
        released = api.format_count(
            verified.released, "file of a released study was", "files of released studies were"
        )
        out.print(f"{released} not compared")
    if verification.sample is not None:
        out.print(_describe_sample(verified))
    if verified.unrecorded:
        files = api.format_count(verified.unrecorded, "file was", "files were")
        listed = f' (listed in {list_file.name} as "stray")' if list_file else ""
        out.print(f"{files} not stored by Quarry{listed}")
    if list_file is not None:
        out.print(f"List of files: {list_file}")
    if verified.damaged and verification.manifest is not None:
        out.print(
            "To mend them, copy these files again from where the folder came from, then verify it again"
        )
    elif verified.damaged:
        out.print(
            f"To set damaged files apart and fetch them again: quarry retry {folder} --damaged",
        )


def _describe_sample(verified: VerifySummary) -> str:
    if not verified.files:
        return "The sample contains no file and proves nothing. Take a larger part"
    if verified.damaged:
        return "Sample only: more files may be damaged. To find all, run quarry verify without --sample"
    return (
        f"Sample only. With 95 % confidence at most {verified.max_undetected_damage:,} of the unread "
        "files are damaged"
    )


class _DamagedFilePrinter:
    """Prints the first damaged files one by one."""

    def __init__(self) -> None:
        self._count = 0

    def show(self, result: FileResult) -> None:
        """Print a path on a terminal; elsewhere the SOP Instance UID, as a path may identify a patient."""
        if not err.is_terminal and not result.file.sop_uid:
            return  # a file not stored by Quarry has no UID
        self._count += 1
        if self._count <= _MAX_SHOWN:
            name = (
                api.escape_text(result.file.path, limit=_MAX_PATH_SHOWN)
                if err.is_terminal
                else result.file.sop_uid
            )
            (out if out.is_terminal else err).print(f"{name} {result.problem}")

    def finish(self) -> None:
        """Print the number of files that were not named."""
        if self._count > _MAX_SHOWN:
            err.print(f"… and {self._count - _MAX_SHOWN:,} more")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that the progress is kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
