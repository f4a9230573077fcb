"""Suggestions for words that are no command or no option, as a user may have meant them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

#: What other tools call a command, by the command of Quarry.
_OTHER_COMMANDS = {
    "extract": "fetch get download pull retrieve run start move import export",
    "resume": "continue restart go proceed",
    "retry": "again rerun repeat refetch",
    "plan": "dry-run dryrun preview estimate query find search count",
    "check": "ping echo test connect diagnose doctor verify-connection",
    "status": "progress state watch monitor info",
    "list": "ls ps jobs",
    "stop": "cancel kill abort pause quit end",
    "explain": "why show inspect describe history log row",
    "report": "summary csv excel xlsx results",
    "verify": "validate checksum fsck compare audit",
    "release": "delete remove rm forget",
    "prune": "clean cleanup clean-up gc purge tidy orphans",
    "receive": "storescp listen serve server scp",
    "init": "setup configure config new",
}

#: What users and other tools call an option, by the option of Quarry.
_OTHER_OPTIONS = {
    "--output": "--out --file --csv --to-file",
    "--to": "--out --output --output-dir --outdir --dir --directory --folder --dest --destination --target",
    "--from": "--archive --pacs --host --server --source --remote --peer --url --aec --called",
    "--as": "--aet --ae --aetitle --ae-title --local --me --calling --port --receiver --listen --bind",
    "--parallel": "--threads --workers --jobs --concurrency --processes",
    "--threads": "--parallel --workers --jobs --processes",
    "--retrieve": "--method --transport --mode --move --get --wado",
    "--exclude": "--excluded --optout --opt-out --blacklist --skip --without",
    "--skip-bad-rows": "--ignore-errors --skip-errors --force --keep-going",
    "--accept-mismatch": "--ignore-mismatch --force",
    "--detach": "--background --daemon --nohup --bg",
    "--filepath": "--layout --pattern --template --path --structure --naming",
    "--where": "--filter --query --condition",
    "--series": "--modality --only --include",
    "--map": "--column --columns --rename",
    "--date-format": "--date --dates --format",
    "--update": "--refresh --changed --continue --resume --append",
    "--config": "--settings --conf --toml",
    "--json": "--as-json --format",
    "--xlsx": "--excel --xls --workbook",
    "--row": "--line --number",
    "--patient": "--patient-id --patientid --empi --mrn --pid",
    "--patient-id": "--patient --empi --mrn --pid",
    "--accession": "--accession-number --acc --accnum",
    "--study": "--study-uid --uid --studyinstanceuid --suid",
    "--outcome": "--status --state --only",
    "--quick": "--fast --size --sizes",
    "--letter": "--request --mail --email",
    "--help": "--usage --man -?",
    "--version": "-v -V",
}

#: Options that are typed where a command is meant.
_COMMAND_FOR_OPTION = {
    "--dry-run": "plan",
    "--dryrun": "plan",
    "--preview": "plan",
    "--simulate": "plan",
    "--resume": "resume",
    "--continue": "resume",
    "--retry": "retry",
    "--xlsx": "report",
    "--excel": "report",
}

#: Share of the letters that a word has in common with another that it is taken for.
_CUTOFF = 0.7

#: Dashes that a word processor writes for two hyphens.
_LONG_DASHES = "\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}\N{HORIZONTAL BAR}\N{NON-BREAKING HYPHEN}"


def suggest_command(word: str, known: Iterable[str]) -> str:
    """Return a sentence with the command that is meant; empty if no guess is good."""
    names = list(known)
    plain = word.strip().casefold().lstrip("-").replace("_", "-")
    if plain in names:
        return f"Did you mean {plain}?"
    if plain in ("help", "version"):
        return f"Type quarry --{plain}" + (", or quarry COMMAND --help" if plain == "help" else "")
    meant = _by_other_name(plain, _OTHER_COMMANDS, names) or get_close_matches(plain, names, 1, _CUTOFF)
    if meant:
        return f"Did you mean {meant[0]}?"
    if plain.endswith((".csv", ".xlsx", ".tsv", ".txt")):
        return f"To extract this table: quarry extract {word}"
    return ""


def suggest_option(word: str, known: Iterable[str], suggest_elsewhere: Callable[[str], str]) -> str:
    """Return a sentence with the option that is meant; empty if no guess is good.

    ``known`` are the options of the command, ``suggest_elsewhere`` returns a sentence about an option of
    another one, or an empty text.
    """
    names = list(known)
    plain = _with_two_hyphens(word)
    if plain in names:
        return f"Did you mean {plain}?"
    meant = _by_other_name(plain, _OTHER_OPTIONS, names)
    if meant:
        return f"Did you mean {meant[0]}?"
    if command := _COMMAND_FOR_OPTION.get(plain):
        return f"That is a command of its own: quarry {command}"
    if elsewhere := suggest_elsewhere(plain):
        return elsewhere
    others = {word: name for name in names for word in _OTHER_OPTIONS.get(name, "").split()}
    close = get_close_matches(plain, names, 1, _CUTOFF)
    close = close or [others[word] for word in get_close_matches(plain, others, 1, _CUTOFF)]
    return f"Did you mean {close[0]}?" if close else ""


def find_long_dash(words: Iterable[str], known: Iterable[str]) -> str:
    """Return a sentence about an option that begins with a long dash; empty if there is none."""
    names = set(known)
    for word in words:
        plain = _with_two_hyphens(word)
        if word[:1] in _LONG_DASHES and plain in names:
            return f"'{word}' begins with a long dash, as word processors write it. Type two hyphens: {plain}"
    return ""


def _with_two_hyphens(word: str) -> str:
    letters = word.strip().lstrip("-" + _LONG_DASHES).split("=")[0]
    return f"--{letters.casefold().replace('_', '-')}"


def _by_other_name(word: str, others: Mapping[str, str], known: Iterable[str]) -> list[str]:
    names = set(known)
    return [name for name, words in others.items() if name in names and word in words.split()]
