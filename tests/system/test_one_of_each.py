"""One of each: a primitive of the operating system is used in one place of ``dicom_quarry.system`` only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import dicom_quarry

SOURCE = Path(dicom_quarry.__file__).parent

#: What is called, and where it may be; each exception with its reason.
PRIMITIVES: dict[str, dict[str, str]] = {
    "fcntl.*": {"system/locks.py": "the locks"},
    "os.fsync": {
        "system/atomic_file.py": "the content of an atomic file",
        "system/file_systems.py": "a directory",
        "jobs/audit_log.py": "lines that are only appended",
        "jobs/checkpoint_store.py": "findings that are only appended",
        "store/file_placement.py": "an instance that was stored before",
        "store/file_sync.py": "the instances of a study",
        "store/instance_store.py": "an instance",
        "store/recovery.py": "an instance that a crash left behind",
    },
    "os.replace": {},
    ".replace(path)": {"system/atomic_file.py": "the atomic files"},
    ".rename()": {
        "store/file_placement.py": "an instance, on file systems without hard links",
        "store/recovery.py": "a damaged instance, beside the others",
        "store/moving.py": "files that are set apart, or pruned",
    },
    "os.killpg": {"system/subprocess_runner.py": "a command and what it has started"},
    "psutil": {"system/processes.py": "processes"},
    "pwd": {"system/processes.py": "names of users"},
    "'/proc": {
        "system/file_systems.py": "mounts, memory, the start of the computer",
        "system/locks.py": "the holder of a lock",
        "system/worker_identity.py": "the start of a process",
    },
    "os.O_CREAT": {
        "store/instance_store.py": "an instance, in a folder of ours",
        "api/background.py": "by way of open_own_file",
        "jobs/audit_log.py": "by way of open_own_file",
        "jobs/folder.py": "by way of open_own_file",
        "jobs/internal_errors.py": "by way of open_own_file",
        "ledger/sqlite.py": "by way of open_own_file",
        "planning/plan_cache.py": "by way of open_own_file",
        "system/locks.py": "by way of open_own_file",
        "jobs/checkpoint_store.py": "by way of open_own_file",
    },
    "os.geteuid": {
        "jobs/folder.py": "the mode of a log of ours",
        "jobs/registry.py": "the mode of folders of ours",
        "system/atomic_file.py": "temporary files that were left",
        "system/ownership.py": "owners",
        "system/permissions.py": "groups",
    },
}


def uses(tree: ast.AST) -> Iterator[str]:
    """The primitives in a module, as they are spelled in ``PRIMITIVES``."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case ast.Attribute(value=ast.Name(id="fcntl")):
                yield "fcntl.*"
            case ast.Attribute(value=ast.Name(id="os"), attr=name):
                yield f"os.{name}"
            case ast.Call(func=ast.Attribute(attr="rename")):
                yield ".rename()"
            # Text has two arguments here, a path one; a time has keywords.
            case ast.Call(func=ast.Attribute(attr="replace"), args=[_], keywords=[]):
                yield ".replace(path)"
            case ast.Constant(value=str(text)) if text.startswith("/proc"):
                yield "'/proc"


def test_every_primitive_is_in_its_place() -> None:
    found: dict[str, set[str]] = {name: set() for name in PRIMITIVES}
    for path in SOURCE.rglob("*.py"):
        for use in uses(ast.parse(path.read_text(encoding="utf-8"))):
            if use in found:
                found[use].add(path.relative_to(SOURCE).as_posix())
    assert found == {name: set(places) for name, places in PRIMITIVES.items()}
