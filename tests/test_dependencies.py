"""The runtime has the packages that Quarry imports, and no other."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: The time zones of computers that have none; nothing imports it.
DATA_ONLY = {"tzdata"}
EXTRAS = ("web", "notebook", "sign", "cluster")
#: Used where they are, in a notebook: nothing needs them.
IF_THERE = {"IPython", "pyarrow"}


def imported() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {one.name.partition(".")[0] for one in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"dicom_quarry"}


def test_what_is_declared_is_what_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for name in EXTRAS for one in project["optional-dependencies"][name]]
    names = (re.split("[><=~;[ ]", one)[0] for one in (*project["dependencies"], *extras))
    declared = {name.replace("psycopg-pool", "psycopg_pool") for name in names}
    assert imported() == declared - DATA_ONLY | IF_THERE


def test_what_is_installed_is_pinned_with_hashes() -> None:
    for name in ("runtime", "dev", "release"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        pins = re.findall(r"^([a-z0-9._-]+)==\S+.*\\\n    --hash=", text, re.MULTILINE)
        assert pins and len(pins) == len(re.findall(r"^\w", text, re.MULTILINE)), name
        assert "://" not in text, "an address of a registry"
    runtime = (ROOT / "requirements/runtime.txt").read_text()
    for unused in ("httpcore", "h11", "anyio", "httpx", "alembic"):
        assert f"\n{unused}==" not in runtime
