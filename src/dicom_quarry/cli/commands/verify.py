"""``quarry verify``: compare the files with what was recorded, or the record with the archive."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from dicom_quarry import api
from dicom_quarry.cli.console import err, out
from dicom_quarry.cli.display.progress_line import PaceLine, files_line, say
from dicom_quarry.cohort.cell_values import visible
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.folder import existing
from dicom_quarry.reporting.formatting import counted
from dicom_quarry.system.time_text import spoken_time
from dicom_quarry.verification.sampling import share_of
from dicom_quarry.verification.verifier import Checked, Manner, Verification, Verified

#: Damaged files that are named one by one.
_SHOWN = 20


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
        from dicom_quarry.cli.commands.verify_archive import against

        against(folder, restart=restart)
    share = None if sample is None else share_of(sample)
    manner = Manner(quick, share, seed, threads, restart)
    _files(folder, manner)


def _files(folder: Path, manner: Manner) -> NoReturn:
    names = _Names()
    with Verification(existing(folder), manner) as verification, _interruptible():
        _tell_beginning(verification)
        try:
            with PaceLine() as line:
                verified = verification.run(names.tell, lambda pace: line.show(lambda: files_line(pace)))
        except KeyboardInterrupt:
            names.end()
            say(f"interrupted at {verification.looked_at:,} files: run the same command again to go on")
            raise typer.Exit(4) from None
        names.end()
        listed = api.damaged_file(verification, verified, whole=manner.whole)
        verification.finish()
    _tell_end(folder, manner, verification, verified, listed)
    raise typer.Exit(1 if verified.damaged else 0)


def _tell_beginning(verification: Verification) -> None:
    if verification.since is not None:
        ago = spoken_time(max(0.0, time.time() - verification.since))
        files = counted(verification.looked_at, "file")
        say(f"going on where it was left {ago} ago, after {files} (--restart begins anew)")
    sample = verification.sample
    if sample is not None:
        say(f"a random {100 * sample.share:g} % of the files; the same once more: --seed {sample.seed}")


def _tell_end(
    folder: Path, manner: Manner, of: Verification, verified: Verified, listed: Path | None
) -> None:
    how = "by size" if manner.quick else "by SHA-256"
    out.print(f"{verified.files:,} files compared {how}: {verified.damaged:,} damaged or missing")
    if verified.uncompared:
        out.print(f"{verified.uncompared:,} more were recorded meanwhile: run again to compare these")
    if verified.released:
        out.print(f"{verified.released:,} files of released studies were not looked at")
    if of.sample is not None:
        out.print(_proves(verified))
    if verified.strays:
        strays = counted(verified.strays, "file")
        out.print(f"{strays} in the folder that the record does not have: nobody vouches for them")
    if listed is not None:
        out.print(f"{listed} lists them", markup=False)
    if verified.damaged:
        out.print(
            f"what to do: quarry retry {folder} --damaged  moves them aside and has them sent again",
            markup=False,
        )


def _proves(verified: Verified) -> str:
    if not verified.files:
        return "no file was chosen, so this says nothing: take a larger part"
    if verified.damaged:
        return "a sample: where some are damaged more may be; a verify without --sample finds all"
    return (
        "a sample does not prove that no file is damaged: with 95 % confidence, "
        f"no more than {verified.may_be_damaged:,} of the others are"
    )


class _Names:
    """Names damaged files one by one, as far as anybody would read on."""

    def __init__(self) -> None:
        self._number = 0

    def tell(self, checked: Checked) -> None:
        """A path may name a patient: elsewhere than on a terminal the SOP Instance UID must do."""
        if not err.is_terminal and not checked.file.sop_uid:
            return  # a stray has none
        self._number += 1
        if self._number <= _SHOWN:
            name = visible(checked.file.path, limit=1000) if err.is_terminal else checked.file.sop_uid
            (out if out.is_terminal else err).print(f"{name} {checked.problem}", markup=False)

    def end(self) -> None:
        """How many were not named."""
        if self._number > _SHOWN:
            err.print(f"… and {self._number - _SHOWN:,} more")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM is as Ctrl-C: what was compared is remembered."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
