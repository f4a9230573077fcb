"""A table without a mistake is extracted; a table that is not there is an error of the user."""

from __future__ import annotations

from tests.mistakes.commands import Shell


def test_a_table_without_a_mistake(shell: Shell) -> None:
    shell.table("Accession\nQA00003\n")
    done = shell.extract()
    assert done.code == 0, done.text
    assert shell.outcomes() == ["complete"]


def test_a_table_that_is_not_there(shell: Shell) -> None:
    done = shell.extract(table="cohrt.csv")
    assert done.code == 2
    assert "cohrt.csv" in done.text
