"""The groups of options in the help of a command, in the order of a user's questions."""

from __future__ import annotations

#: The group of every option, by its name with two hyphens; a group lists its options in the command's order.
_GROUPS = {
    "What": "--to --root --output --filepath --layout --portable-names --directory --file-mode --group --map "
    "--ignore-column --verbatim --hidden-rows --date-format --pad --skip-bad-rows --update --xlsx "
    "--problems --sha256sums --html --bom --sign --json --detailed --letter --probe --save --from-niffler "
    "--delete "
    "--identifiers",
    "From where": "--from --archive-moved --as --retrieve --config --niffler --bind --accept "
    "--accept-unknown --tls-cert --tls-key --tls-ca --tls-profile --serve --dicomweb",
    "Which studies": "--row --patient --patient-id --accession --study --outcome --damaged --changed --where "
    "--rewrite --exclude --series --series-not --min-instances --whole-patients --allow-several-patients "
    "--allow-wildcards --long-identifiers --accept-mismatch --no-diagnosis --against-archive --manifest "
    "--proof --public-key",
    "Limits": "--parallel --max-studies --yes --give-up-after --until-idle --idle-limit --threads --sample "
    "--seed --quick",
    "Running": "--detach --queue --restart --state --job --protocol "
    "--on-complete --on-complete-env --all --now "
    "--port --allow-actions "
    "--pid-file --trust-owner --version --install-completion --show-completion --help",
}

GROUP_OF = {option: group for group, options in _GROUPS.items() for option in options.split()}

#: Of options that mean something else for one command.
GROUP_OF["remove --yes"] = "What"


def sort_into_groups(
    options: list[tuple[str, tuple[str, str]]], command: str = ""
) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the help of options by group; each option comes with its longest name and its line of help."""
    found = [
        (group, [line for name, line in options if _group_of(name, command) == group]) for group in _GROUPS
    ]
    return [(group, lines) for group, lines in found if lines]


def _group_of(name: str, command: str) -> str:
    return GROUP_OF.get(f"{command} {name}") or GROUP_OF.get(name, "Running")
