"""The class of Quarry's commands: help in groups, and errors of usage that name what was meant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from typer.core import TyperCommand

from dicom_quarry.cli.did_you_mean import find_long_dash, suggest_option
from dicom_quarry.cli.help_groups import sort_into_groups

#: The line before the examples in a command's docstring.
_EXAMPLES = "Examples:\n"

#: The type of an option that can be repeated; its help states that.
_LIST = re.compile(r"list\[(\w+)\]")

#: The beginning of the parser's message about words that a command does not take.
_EXTRA_WORDS = "Got unexpected extra argument"


class QuarryCommand(TyperCommand):
    """A command of Quarry; ``suggest_elsewhere`` returns a sentence about an option of another command."""

    suggest_elsewhere: Callable[[str], str] = staticmethod(lambda _: "")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """Write the text of the help; examples stay as they are typed, one a line."""
        text, _, examples = (self.help or "").partition(_EXAMPLES)
        self.help, whole = text, self.help
        try:
            super().format_help_text(ctx, formatter)
        finally:
            self.help = whole
        if examples:
            with formatter.section("Examples"):
                for line in examples.split("\n"):
                    formatter.write(
                        f"{'':>{formatter.current_indent}}{line.strip()}\n" if line.strip() else ""
                    )

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options in groups: what, from where, which studies, limits, running."""
        arguments = [one.get_help_record(ctx) for one in self.params if one.param_type_name == "argument"]
        options = [
            (max(one.opts, key=len), (_LIST.sub(r"\1", record[0]), record[1]))
            for one in self.get_params(ctx)
            if one.param_type_name == "option" and (record := one.get_help_record(ctx))
        ]
        groups = sort_into_groups(options, str(ctx.info_name))
        if arguments:
            first, lines = groups[0] if groups and groups[0][0] == "What" else ("What", [])
            groups = [
                (first, [*filter(None, arguments), *lines]),
                *(one for one in groups if one[0] != "What"),
            ]
        for title, lines in groups:
            with formatter.section(title):
                formatter.write_dl(lines)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the command's name; an error of usage names what may be meant."""
        words = list(args)
        known = options_of(self)
        if long_dash := find_long_dash(words, known):
            ctx.fail(long_dash)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "option_name") and hasattr(error, "possibilities"):
                explain_unknown_option(error, words, known, type(self).suggest_elsewhere)
            elif str(getattr(error, "message", "")).startswith(_EXTRA_WORDS) and "--to" in known:
                error.message += ". If it is the output folder, write --to before it"  # type: ignore[attr-defined]
            raise


def explain_unknown_option(
    error: Any, words: list[str], known: list[str], suggest_elsewhere: Callable[[str], str]
) -> None:
    """Replace the parser's message about an unknown option by one that names the option that is meant."""
    name = str(error.option_name)
    typed = next((word for word in words if word.startswith(name)), name).split("=")[0]
    suggestion = suggest_option(typed, known, suggest_elsewhere)
    error.possibilities = None
    error.message = f"No such option: {typed}" + (f". {suggestion}" if suggestion else "")


def options_of(command: Any) -> list[str]:
    """Return the options of a command, as they are typed."""
    return [name for one in command.params for name in one.opts if name.startswith("-")] + ["--help"]
