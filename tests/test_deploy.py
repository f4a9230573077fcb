"""What is in deploy/ keeps its rules: no container engine is at hand here, so what can be read is checked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from dicom_quarry.api.demonstration import run_demo
from dicom_quarry.config.settings import DEFAULT_LOCAL, load_settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
MANY_HOSTS = ROOT / "docs" / "many-hosts.md"
COMPOSE = (DEPLOY / "compose.yaml").read_text()
UNIT = (DEPLOY / "quarry-worker.service").read_text()


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


def service(name: str) -> str:
    """Return a service of compose.yaml, with the services whose keys it takes over."""
    found = re.search(rf"^  {name}:(?: &\w+)?\n((?:    .*\n|\n)+)", COMPOSE, re.MULTILINE)
    assert found, name
    bases = re.findall(r"<<: \*(\w+)", found[1])
    return found[1] + "".join(service(re.findall(rf"^  (\w+): &{base}$", COMPOSE, re.M)[0]) for base in bases)


def test_the_wheelhouse_has_what_many_hosts_needs() -> None:
    """The packages of the extra, the files that the page names, and the settings of the workers."""
    runtime = (ROOT / "requirements" / "runtime.txt").read_text()
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "cluster"
    ]
    for name in (re.split(r"[>\[]", one)[0] for one in extra):
        assert f"\n{name}==" in runtime, name
    script = (DEPLOY / "wheelhouse.sh").read_text()
    for name in ("compose.yaml", "worker", "quarry-worker.service"):
        assert f"deploy/{name}" in script and (DEPLOY / name).exists()


def test_the_page_and_compose_have_the_same_commands() -> None:
    page = re.findall(
        r"^\$ (.*(?:docker|mkdir|password|QUARRY_USER).*)$", MANY_HOSTS.read_text(), re.MULTILINE
    )
    assert page and page == re.findall(r"^#   (\S.*)$", COMPOSE, re.MULTILINE)


def test_the_containers_of_compose_run_as_the_user_who_owns_the_folders() -> None:
    """A file of another user, as a secret is to user 10001, could not be read; nor a folder be written to."""
    for name in ("prepare", "archive", "worker1", "worker2"):
        assert "    user: ${QUARRY_USER:?" in service(name), name
        # Or the receiver would not see the archive's address, and the demo archive could not be reached.
        assert "    network_mode: host" in service(name), name
        assert '"./state:/state"' in service(name), "as the image's own is for user 10001"
        assert '"/etc/quarry:/etc/quarry:ro"' in service(name), "the limits of the site"


def test_the_database_of_compose_is_asked_over_tcp() -> None:
    """The server that makes the database answers on its socket, and ends."""
    assert "pg_isready" in service("database") and "--host=127.0.0.1" in service("database")


@pytest.mark.parametrize("name", ["worker1", "worker2"])
def test_a_worker_of_compose_is_stopped_before_what_it_needs(name: str) -> None:
    needed = re.search(r"^    depends_on:\n((?:      .*\n)+)", service(name), re.MULTILINE)
    assert needed and {"database", "archive", "prepare"} == {
        *re.findall(r"^ +(\w+):", needed[1], re.MULTILINE)
    }
    assert "    stop_grace_period: 30m" in service(name), "or after ten seconds it is killed"
    assert "    restart: unless-stopped" in service(name) and "    restart:" in service("database")


def test_the_settings_of_the_workers_of_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They name the demo archive, which knows the titles and ports of the workers, and the database."""
    monkeypatch.chdir(DEPLOY / "worker")
    settings = load_settings(None, {"to": tmp_path, "from": "main"})
    assert f'"{settings.cluster.ledger}"' in COMPOSE
    assert f'"{settings.cluster.password_file}"' in COMPOSE
    _, port = settings.cluster.ledger.rsplit("/", 1)[0].rsplit(":", 1)
    assert f'ports: ["127.0.0.1:{port}:5432"]' in COMPOSE
    with run_demo(tmp_path) as demo:
        assert (tmp_path / "empi_date.csv") in demo.cohorts, "the table of the commands"
        titles = re.findall(r'"--as", "(\w+):(\d+)"', COMPOSE)
        assert len(titles) == 2
        assert {*titles} <= {(name, str(port)) for name, (_, port) in demo.destinations.items()}


def test_the_unit_of_a_worker() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT, re.MULTILINE))
    root = settings["ExecStart"].rsplit(" ", 1)[1]
    # Without its disk the worker would fill the folder below; under ProtectSystem it writes nowhere else.
    assert settings["RequiresMountsFor"] == settings["ReadWritePaths"] == root
    # A command for a complete study is a child: it gets no SIGTERM of its own.
    assert settings["KillMode"] == "mixed" and settings["TimeoutStopSec"] == "30min"
    page = MANY_HOSTS.read_text()
    for path in (settings["WorkingDirectory"], f"/var/lib/{settings['StateDirectory']}", root):
        assert path in page, path
    (line,) = re.findall(r"useradd .*? quarry\b(?= |$)(?!/)", UNIT, re.MULTILINE)
    assert line in page


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd here")
def test_systemd_accepts_the_unit_of_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "quarry-worker.service"
    path.write_text(UNIT.replace("/opt/quarry/bin/quarry", "/bin/true").replace("User=quarry", "User=root"))
    command = ["systemd-analyze", "verify", "--system", "--man=no", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and path.name not in done.stderr, done.stderr


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
