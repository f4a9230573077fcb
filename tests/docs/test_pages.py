"""Find every command on a page, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.docs import arguments
from tests.docs.pages import Part, commands_in_blocks, mentioned, parts

PAGE = """\
Try `quarry stop --now`, or `quarry stop
--all`.

<!-- test: exit-4 -->
```console
$ quarry status out/ \\
    --json
{
$ quarry list
```

```sh
# a comment
quarry verify out
```

```ini
ExecStart=/opt/quarry/bin/quarry extract %h/cohort.csv
Description=our `quarry report` of the night
```
"""


def test_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert list(parts(page))[:-1] == [
        Part("event", "exit-4"),
        Part("command", "quarry status out/ --json", ("{",)),
        Part("command", "quarry list"),
        Part("command", "quarry verify out"),
    ]
    assert mentioned(page) == ["quarry stop --now", "quarry stop --all", "quarry report"]
    assert commands_in_blocks(page, {"extract", "report"}) == [
        "ExecStart=/opt/quarry/bin/quarry extract %h/cohort.csv"
    ]


def test_unknown_options_are_found() -> None:
    assert not arguments.unknown("quarry stop FOLDER --now --help")
    assert not arguments.unknown("quarry --version")
    assert not arguments.unknown("quarry extract … --to=out")
    assert arguments.unknown("quarry stop --later") == ["--later"]
    assert arguments.unknown("quarry start out/") == ["start"]
    assert arguments.unknown("quarry COMMAND --nothing") == ["--nothing"]
