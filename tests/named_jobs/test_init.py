"""``quarry cluster init``, and what is said where it cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from dicom_quarry import api
from dicom_quarry.config.cluster import find_url_problem
from dicom_quarry.config.settings import load_settings
from dicom_quarry.errors import ConfigError, LedgerError
from dicom_quarry.jobs.cluster.database import Cluster
from tests.e2e.command import quarry
from tests.peers.process import free_port


def jobs_of(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT number, name FROM quarry.jobs").fetchall()


def test_a_second_call_changes_nothing(work: Path, empty_database: str) -> None:
    first = quarry("cluster", "init", empty_database)
    assert (first.code, first.err) == (0, "")
    assert "The list of jobs was made" in first.out and f'ledger = "{empty_database}"' in first.out
    Cluster(empty_database).add("trial", work)
    (work / "password").touch(0o600)
    second = quarry("cluster", "init", empty_database, "--password-file", "password")
    assert f'password-file = "{work / "password"}"' in second.out
    assert second.code == 0 and "is there already: nothing was changed" in second.out
    assert jobs_of(empty_database) == [(1, "trial")]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anna:geheim@db/quarry",
        "postgresql://anna@db/quarry?password=geheim",
        "postgresql://anna@db/quarry?sslpassword=geheim",
        "host=db password = geheim",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_repeated(work: Path, url: str) -> None:
    done = quarry("cluster", "init", url)
    assert done.code == 2 and "password in the URL" in done.err and "~/.pgpass" in done.err
    (work / "quarry.toml").write_text(f'from = "P@127.0.0.1:104"\nto = "out"\n[cluster]\nledger = "{url}"\n')
    with pytest.raises(ConfigError, match=r"\[cluster\] ledger: there is a password") as caught:
        load_settings(None, {})
    assert "geheim" not in done.err + done.out + str(caught.value)


@pytest.mark.parametrize("url", ["mysql://db/quarry", "db.hospital.example", "postgresql://[/x"])
def test_another_kind_of_url(url: str) -> None:
    assert "postgresql://USER@HOST/DATABASE" in find_url_problem(url)


def test_errors_of_the_server(work: Path, empty_database: str) -> None:
    nobody_listens = f"postgresql://quarry@127.0.0.1:{free_port()}/quarry"
    away = quarry("cluster", "init", nobody_listens)
    assert away.code == 3 and nobody_listens in away.err and "have it started" in away.err
    unknown = quarry("cluster", "init", f"{empty_database}_2")
    assert unknown.code == 3 and "does not exist: look for a mistake in the URL" in unknown.err
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    guest = urlsplit(empty_database)
    url = guest._replace(netloc=f"guest@{guest.hostname}:{guest.port}").geturl()
    refused = quarry("cluster", "init", url)
    assert refused.code == 3 and "rights" in refused.err and "permission denied" in refused.err


def test_the_password_comes_from_a_file(empty_database: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("geheim\n")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=rf"others can read {secret}: run  chmod 600"):
        api.init_cluster(empty_database, secret)
    secret.chmod(0o600)
    assert api.init_cluster(empty_database, secret), "the server of the tests takes any"


def test_another_version_of_the_list_is_refused(empty_database: str) -> None:
    assert api.init_cluster(empty_database)
    with psycopg.connect(empty_database) as connection:
        connection.execute("UPDATE quarry.version SET version = 99")
    with pytest.raises(LedgerError, match="of a newer version of Quarry"):
        api.init_cluster(empty_database)


def test_without_the_extra_the_error_names_it(work: Path) -> None:
    code = (
        "import sys; sys.modules['psycopg'] = None; sys.argv = ['quarry', 'cluster', 'init',"
        " 'postgresql://db/quarry']; from dicom_quarry.cli.main import main; main()"
    )
    failed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert failed.returncode == 2 and "pip install 'dicom-quarry[cluster]'" in failed.stderr


def test_a_job_in_a_folder_loads_no_driver(work: Path) -> None:
    """Also where quarry.toml names a database; what runs a job and what shows one."""
    (work / "quarry.toml").write_text('[cluster]\nledger = "postgresql://127.0.0.1:1/quarry"\n')
    code = (
        "import sys; from pathlib import Path; import dicom_quarry, dicom_quarry.api.extraction;"
        "from tests.e2e.finished_job import record_job; record_job(Path('out'), 1, 1);"
        "opened = dicom_quarry.open('out'); opened.status(), opened.report(), opened.verify().damaged;"
        "print([one for one in ('psycopg', 'procrastinate', 'dicom_quarry.jobs.cluster.place')"
        " if one in sys.modules])"
    )
    root = Path(__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(root)!r}); {code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr


def test_a_new_job_never_gets_the_record_of_another(empty_database: str, tmp_path: Path) -> None:
    cluster = Cluster(empty_database)
    assert cluster.init()
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA job_1")
        connection.execute("CREATE SCHEMA job_2")
    assert cluster.add("trial", tmp_path).number == 3
    assert cluster.add("trial", tmp_path).number == 3
    assert cluster.add("other", tmp_path).number > 3


def test_a_database_that_others_could_have_named_is_not_used(work: Path) -> None:
    settings = work / "quarry.toml"
    settings.write_text(
        'from = "P@127.0.0.1:104"\nto = "out"\n[cluster]\nledger = "postgresql://db/quarry"\n'
    )
    settings.chmod(0o666)
    with pytest.raises(ConfigError, match="your password is sent only to a database"):
        api.read_job_status(Path("job:trial"))
    with pytest.raises(ConfigError, match="your password is sent only to a database"):
        load_settings(None, {})
    assert load_settings(None, {"trust_owner": True}).cluster.ledger == "postgresql://db/quarry"


def test_a_database_is_the_same_for_another_role_and_with_other_options() -> None:
    named = Cluster("postgresql://anna@db1:5432,DB2:5433/quarry").database
    assert Cluster("postgres://db1:5432,db2:5433/quarry?sslmode=verify-full").database == named
    assert Cluster("postgresql://anna@db1:5432,db2:5433/other").database != named
