"""docs/options-of-a-job.md has every option of extract and retry, with the effect that the code gives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs.option_changes import RULES
from tests.docs.arguments import COMMANDS

PAGE = Path("docs/options-of-a-job.md")

#: Settings without an option: they are in quarry.toml alone, and change no row.
WITHOUT_OPTION = {
    *("tls", "keep_free", "room", "plan_age", "notify", "sign", "metrics", "html", "cluster", "commands"),
    *("on_complete_parallel", "on_complete_limit", "on_complete_patience"),
}


def real_options(name: str) -> set[str]:
    return {
        max(one.opts, key=len) for one in COMMANDS[name].params if max(one.opts, key=len).startswith("--")
    }


def documented() -> dict[str, str]:
    _, table = PAGE.read_text(encoding="utf-8").split("<!-- test: options-of-a-job -->")
    lines = re.findall(r"^\| `(--[a-z-]+)` \| ([^|]+) \|", table, re.MULTILINE)
    assert len(lines) == len(dict(lines)), "an option is documented twice"
    return dict(lines)


def test_every_option_has_a_rule_and_is_documented() -> None:
    real = real_options("extract") | real_options("retry")
    assert set(RULES) == real
    assert documented() == {
        name: rule.effect.replace("--update", "`--update`") for name, rule in RULES.items()
    }


@pytest.mark.parametrize("name", ["--series", "--max-studies", "--no-diagnosis"])
def test_an_option_that_is_forgotten_is_found(name: str) -> None:
    assert name in documented() and name in real_options("extract")


def test_every_setting_has_an_option_or_changes_no_row() -> None:
    named = {field for rule in RULES.values() for field in rule.fields}
    assert named.isdisjoint(WITHOUT_OPTION)
    assert named | WITHOUT_OPTION == set(Settings.model_fields)
