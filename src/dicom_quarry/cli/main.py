"""The ``quarry`` command."""

from __future__ import annotations

import errno
import gc
import io
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from dicom_quarry.cli.command_class import QuarryCommand, explain_unknown_option, options_of
from dicom_quarry.cli.console import fail
from dicom_quarry.cli.did_you_mean import suggest_command
from dicom_quarry.errors import (
    ArchiveError,
    InputError,
    LedgerError,
    LedgerFull,
    OperatorActionRequired,
    ReceiverEnded,
    StartError,
)
from dicom_quarry.version import __version__

#: Exit code of an internal error (EX_SOFTWARE of sysexits.h).
_INTERNAL_ERROR = 70

#: Exit code of a command that was stopped.
_NOT_FINISHED = 4

_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})

_SHOW_HELP: dict[str, Any] = {"no_args_is_help": True}

#: Every command, in the order of the help: its module in ``commands``, its function, and typer's options.
_COMMANDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "init": ("init", "init", {}),
    "check": ("check", "check", {}),
    "plan": ("plan", "plan", _SHOW_HELP),
    "extract": ("extract", "extract", _SHOW_HELP),
    "resume": ("resume", "resume", {}),
    "status": ("status", "status", {}),
    "list": ("list_jobs", "list_jobs", {}),
    "stop": ("stop", "stop", _SHOW_HELP),
    "report": ("report", "report", {}),
    "explain": ("explain", "explain", {}),
    "verify": ("verify", "verify", {}),
    "retry": ("extract", "retry", _SHOW_HELP),
    "release": ("release", "release", _SHOW_HELP),
    "prune": ("prune", "prune", _SHOW_HELP),
    # Further arguments are AE titles behind --accept.
    "receive": ("receive", "receive", {**_SHOW_HELP, "context_settings": {"allow_extra_args": True}}),
    "web": ("web", "web", {}),
    "cluster": ("cluster", "cluster", {}),
    "worker": ("worker", "worker", _SHOW_HELP),
    "demo": ("demo", "demo", {}),
}


class _LazyCommandGroup(TyperGroup):
    """Imports a command when it or its help is called: each needs other libraries, and they take time."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, function, options = _COMMANDS[cmd_name]
        with _gc_paused():
            command = getattr(import_module(f"dicom_quarry.cli.commands.{module}"), function)
        # The command is loaded, and can end in order.
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(command, typer.Typer):  # a command with commands of its own
            return get_command(command)
        alone = typer.Typer(add_completion=False, rich_markup_mode=None)
        alone.command(cmd_name, cls=QuarryCommand, **options)(command)
        return get_command(alone)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words before the command's name."""
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "option_name") and hasattr(error, "possibilities"):
                explain_unknown_option(error, words, options_of(self), self._behind_command(words))
            raise

    def _behind_command(self, words: list[str]) -> Callable[[str], str]:
        """Return the suggestion for an option of a command that is typed before the command."""

        def suggest(option: str) -> str:
            command = next((word for word in words if word in _COMMANDS), self.command_with(option))
            return f"Write it behind the command: quarry {command} {option}" if command else ""

        return suggest

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command; an unknown one is an error that names what may be meant."""
        if args[0] not in _COMMANDS:
            suggestion = suggest_command(args[0], _COMMANDS)
            ctx.fail(f"No such command '{args[0]}'." + (f" {suggestion}" if suggestion else ""))
        QuarryCommand.suggest_elsewhere = self._suggest_elsewhere
        return super().resolve_command(ctx, args)

    def _suggest_elsewhere(self, option: str) -> str:
        command = self.command_with(option)
        return f"It is an option of quarry {command}" if command else ""

    def command_with(self, option: str) -> str:
        """Return the first command that has an option, empty if none has."""
        # Most options are those of extract.
        names = sorted(_COMMANDS, key=lambda name: name != "extract")
        has_option = (name for name in names if option in options_of(self.get_command(None, name)))
        return next(has_option, "")

    def invoke(self, ctx: Any) -> Any:
        """Run the command; Ctrl-C ends it as not finished, unless it takes that itself."""
        # Loaded now: when the computer has no memory or files left, nothing more can be imported.
        _load_describe_internal()
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("stopped by Ctrl-C")
            raise typer.Exit(_NOT_FINISHED) from None


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Keep the garbage collector from examining modules while they load, and later: they stay to the end."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


app = typer.Typer(
    name="quarry",
    cls=_LazyCommandGroup,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"quarry {__version__}")
        raise typer.Exit


@app.callback()
def _quarry(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Extract a research cohort from a PACS: from CSV to a verified DICOM tree.

    Exit codes: 0 every row complete or filtered; 1 finished, some rows need attention; 2 usage,
    configuration or input; 3 could not start; 4 not finished, run again to go on; 70 internal error, a
    defect of Quarry.
    """


def main() -> None:
    """Run the command; a known cause and an internal error are each a sentence, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal, or a log, of another encoding must not end a command for a letter that it does not have.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(_NOT_FINISHED)
    except Exception as error:  # noqa: BLE001 - the top of the command
        code = _exit_code(error)
        fail(_load_describe_internal()(error) if code == _INTERNAL_ERROR else _describe(error))
        sys.exit(code)
    finally:
        # The process ends, so the interpreter need not collect garbage once more.
        gc.freeze()


def _describe(error: Exception) -> str:
    """Return the sentence for a known cause; that of the system's errors is put into the usual order."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in _DISK_FULL_ERRNOS:
        return f"{where}disk full. Free some space, then run the same command again"
    return f"{where}{error.strerror}"


def _exit_code(error: Exception) -> int:
    """Return 2 for the user's input alone, 3 for what is outside of Quarry, 4 if a person has to act."""
    if isinstance(error, InputError):
        return 2
    if isinstance(error, OperatorActionRequired | ReceiverEnded | LedgerFull):
        return _NOT_FINISHED
    if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
        return _NOT_FINISHED
    if isinstance(error, StartError | ArchiveError | LedgerError | OSError):
        return 3
    return _INTERNAL_ERROR


def _load_describe_internal() -> Callable[[BaseException], str]:
    from dicom_quarry import api

    return api.describe_internal
