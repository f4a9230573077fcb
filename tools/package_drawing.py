"""Draw the packages and their imports, layer by layer, as Mermaid; part of ``make docs``."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "dicom_quarry"


def load_layers() -> list[list[str]]:
    """The layers of the import-linter contract in pyproject.toml, topmost first."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        contracts = tomllib.load(stream)["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one["type"] == "layers")
    return [[name.strip(" ()") for name in layer.replace("|", ":").split(":")] for layer in layers]


def imported_packages(tree: ast.Module) -> Iterator[str]:
    """The packages, or modules at the root, that a module imports from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]


def find_imports() -> dict[str, set[str]]:
    """The packages that each package imports, itself left out; imports inside functions count."""
    found: dict[str, set[str]] = {}
    root = ROOT / "src" / PACKAGE
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root).parts[0].removesuffix(".py")
        imports = set(imported_packages(ast.parse(file.read_text(encoding="utf-8"))))
        found.setdefault(name, set()).update(imports - {name})
    return found


def find_upward(imports: Mapping[str, set[str]], layers: list[list[str]]) -> list[tuple[str, str]]:
    """Imports of a package in the same layer or in one above."""
    rank = {name: number for number, layer in enumerate(layers) for name in layer}
    return sorted(
        (name, other)
        for name, others in imports.items()
        for other in others
        if name in rank and other in rank and rank[other] <= rank[name]
    )


def remove_implied(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Only the imports that no other path implies: a drawing with all of them shows nothing."""

    def reach(name: str) -> set[str]:
        direct = imports.get(name, set())
        return direct.union(*(reach(other) for other in direct))

    return {
        name: {one for one in direct if not any(one in reach(other) for other in direct - {one})}
        for name, direct in imports.items()
    }


def draw() -> str:
    """The drawing; raises ValueError if an import leads upward."""
    layers, imports = load_layers(), find_imports()
    if upward := find_upward(imports, layers):
        raise ValueError(f"these imports lead upward: {upward}")
    known = [name for layer in layers for name in layer]
    shown = {name: imports.get(name, set()) & set(known) for name in known}
    lines = ["flowchart TD"]
    for number, layer in enumerate(layers):
        lines += [f"    subgraph layer{number}[ ]", *(f"        {name}" for name in layer), "    end"]
    arrows = remove_implied(shown)
    lines += [f"    {name} --> {other}" for name in known for other in known if other in arrows[name]]
    return "\n".join(lines)
