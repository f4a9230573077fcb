"""The Dockerfile keeps its rules: no container engine is at hand here, so what can be read is checked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from dicom_quarry.config.settings import DEFAULT_LOCAL

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"


def instructions() -> list[tuple[str, str]]:
    """Each instruction with its arguments, comments left out and lines joined."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], " ".join(line.split()[1:])) for line in lines if line.strip()]


def given(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def test_the_base_is_pinned() -> None:
    values = dict(argument.split("=", 1) for argument in given("ARG"))
    for base in given("FROM"):
        image = re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], base.split()[0])
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", image), image


def test_it_runs_as_nobody_of_note() -> None:
    user = given("USER")[-1]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number, so that a cluster can see that it is not root"
    assert f"--uid {user.split(':')[0]}" in " ".join(given("RUN"))
    assert [name for name, _ in instructions()].index("USER") > max(
        at for at, (name, _) in enumerate(instructions()) if name == "RUN"
    )


def test_signals_reach_quarry() -> None:
    """In the exec form no shell stands between."""
    assert json.loads(given("ENTRYPOINT")[0]) == ["quarry"]
    assert all(isinstance(json.loads(command), list) for command in given("CMD"))


def test_the_receivers_port_and_the_folders() -> None:
    assert given("EXPOSE") == [DEFAULT_LOCAL.rpartition(":")[2]]
    folders = json.loads(given("VOLUME")[0])
    assert folders == ["/data", "/state"] and given("WORKDIR") == ["/data"]
    assert "XDG_STATE_HOME=/state" in given("ENV")[0]
    assert all(folder in " ".join(given("RUN")) for folder in folders), "or they would be root's"


def test_what_is_copied_is_in_the_wheelhouse() -> None:
    script = (DEPLOY / "wheelhouse.sh").read_text()
    let_through = (DEPLOY / "dockerignore").read_text().split()
    copied = [line.split()[:-1] for line in given("COPY") if not line.startswith("--from=")]
    for name in (name for names in copied for name in names):
        assert f"$folder/{name}" in script or (f"deploy/{name}" in script and (DEPLOY / name).is_file())
        assert f"!{name}" in let_through and let_through[0] == "*"
    assert not given("ADD")


@pytest.mark.parametrize("script", sorted(DEPLOY.glob("*.sh")), ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.parametrize("name", ["runtime", "dev", "fuzz", "release", "peers"])
def test_what_is_installed_is_hashed_and_comes_from_nowhere_in_particular(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    wanted = re.findall(r"^\S+==\S+.*(?:\n    --hash=.*)+", text, re.MULTILINE)
    assert len(wanted) == len(re.findall(r"^\S", text, re.MULTILINE)) > 10
    assert "://" not in text and "--index" not in text


def test_node_packages_have_exact_versions_and_digests_and_come_from_nowhere_in_particular() -> None:
    folder = ROOT / "tests" / "peers" / "dcmjs"
    wanted = json.loads((folder / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
    text = (folder / "package-lock.json").read_text()
    packages = {name: one for name, one in json.loads(text)["packages"].items() if name}
    assert len(packages) > 10 and all(one["integrity"] for one in packages.values())
    assert "://" not in text and "resolved" not in text
