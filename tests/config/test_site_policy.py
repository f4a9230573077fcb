"""The site's policy: what it says holds, users can only tighten it, and there is no way around its file."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.config import site_policy
from dicom_quarry.config.archive_profile import ArchiveProfile, Limits
from dicom_quarry.config.settings import load_settings
from dicom_quarry.config.site_policy import SitePolicy
from dicom_quarry.errors import ConfigError, InputError, StartError
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import AE, BaseUri, InstanceInfo
from dicom_quarry.scheduling.site_throttle import build_throttle
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown
from tests.peers.process import free_port

PACS = "PACS@10.1.2.3:104"
NONE = Limits()
Policy = Callable[[str], SitePolicy]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "site.toml"
    monkeypatch.setattr(site_policy, "SITE_POLICY_FILE", path)
    return path


@pytest.fixture
def policy(file: Path) -> Policy:
    def write(text: str) -> SitePolicy:
        file.write_text(text, encoding="utf-8")
        return site_policy.load_site_policy()

    return write


def profile(address: str = PACS, limits: Limits = NONE) -> ArchiveProfile:
    return ArchiveProfile(name="main", address=AE.parse_remote(address), **limits.model_dump())


def throttle(policy: SitePolicy, limits: Limits = NONE, wanted: int = 16) -> ArchiveThrottle:
    return build_throttle(profile(limits=limits), wanted, policy, Shutdown(), StatusBoard())


def refusal(write: Policy, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        write(text)
    return str(refused.value)


def test_without_a_file_there_are_no_limits(file: Path) -> None:
    policy = site_policy.load_site_policy()
    policy.check_archive(profile())
    assert policy.describe_limits(profile()) == ""
    assert policy == SitePolicy()


def test_an_archive_that_is_not_allowed_is_refused_naming_the_file(policy: Policy, file: Path) -> None:
    allowed = policy(f'archives = ["{PACS}", "OLD@pacs.hospital.org:11112"]')
    allowed.check_archive(profile())
    allowed.check_archive(profile("OLD@PACS.Hospital.org:11112"))
    for other in ("PACS@10.1.2.4:104", "PACS@10.1.2.3:105", "pacs@10.1.2.3:104", "OLD@pacs:11112"):
        with pytest.raises(ConfigError) as refused:
            allowed.check_archive(profile(other))
        assert str(refused.value).startswith(
            f"{file}: this site does not allow the archive {other}. Allowed: "
        )
        assert PACS in str(refused.value)
    with pytest.raises(ConfigError, match="Allowed: none"):
        policy("archives = []").check_archive(profile())


def test_the_job_does_not_begin_with_an_archive_that_is_not_allowed(policy: Policy, tmp_path: Path) -> None:
    policy('archives = ["OTHER@10.1.2.3:104"]')
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("Accession\nA1\n")
    with pytest.raises(ConfigError, match="does not allow the archive PACS"):
        api.extract(cohort, archive=PACS, to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Messages(JobObserver):
    """What a job tells its user; ``reached`` is set by what begins so."""

    def __init__(self, awaited: str) -> None:
        self.messages: list[str] = []
        self.reached = threading.Event()
        self._awaited = awaited

    def on_message(self, message: str) -> None:
        self.messages.append(message)
        if message.startswith(self._awaited):
            self.reached.set()


def test_outside_the_sites_window_a_job_says_so_and_never_calls(policy: Policy, tmp_path: Path) -> None:
    opens, closes = (datetime.now(UTC) + timedelta(hours=hours) for hours in (3, 4))
    policy(f'time-zone = "UTC"\nwindow = "{opens:%H:%M}-{closes:%H:%M}"')
    cohort = tmp_path / "cohort.csv"
    cohort.write_text("Accession\nA1\n")
    with socket.create_server(("127.0.0.1", 0)) as archive:
        flags = {
            "from": f"PACS@127.0.0.1:{archive.getsockname()[1]}",
            "to": str(tmp_path / "out"),
            "as": f"QUARRY:{free_port()}",
        }
        said = Messages("outside the window")
        runner = api.make_runner(load_settings(None, flags), said)
        job = threading.Thread(target=runner.extract, args=(cohort,))
        job.start()
        assert said.reached.wait(60)
        runner.queries.stop()
        job.join(60)
        assert not job.is_alive(), "a stop ends the wait"
        archive.setblocking(False)
        with pytest.raises(BlockingIOError):
            archive.accept()
    assert said.messages[0].startswith("limits of this site")
    assert said.messages[1] == f"outside the window: waiting until {opens:%a %H:%M} (UTC)"


def test_bytes_are_counted_for_the_archive_that_sends_them(policy: Policy, tmp_path: Path) -> None:
    policy(f'shared = "{tmp_path / "shared"}"\n[archive."OLD@192.0.2.3:104"]\nmegabytes-per-second = 5')
    flags = {"from": "PACS@192.0.2.2:104,OLD@192.0.2.3:104", "to": str(tmp_path / "out")}
    queries = make_query_context(load_settings(None, flags), Messages(""))

    def counted(title: str) -> bool:
        return (
            queries.bandwidth_limiter_for(InstanceInfo("1.2", "1.2.3", "1.2.840.10008.1.2", calling_ae=title))
            is not None
        )

    assert [counted(title) for title in ("OLD", "PACS", "ELSE")] == [True, False, False]


@pytest.mark.parametrize(
    ("site_parallel", "archive_parallel", "own", "wanted", "ceiling"),
    [(3, 5, 4, 8, 3), (5, 2, 4, 8, 2), (5, 5, 2, 8, 2), (5, 5, 4, 1, 1), (16, 16, None, 16, 16)],
)
def test_of_ceilings_the_lowest_holds(
    policy: Policy,
    tmp_path: Path,
    site_parallel: int,
    archive_parallel: int,
    own: int | None,
    wanted: int,
    ceiling: int,
) -> None:
    shared = f'shared = "{tmp_path / "shared"}"'
    text = f'parallel = {site_parallel}\n{shared}\n[archive."{PACS}"]\nparallel = {archive_parallel}'
    assert throttle(policy(text), Limits(parallel=own), wanted).max_parallel == ceiling


def test_windows_intersect(policy: Policy) -> None:
    text = f'time-zone = "UTC"\nwindow = "19:00-07:00"\n[archive."{PACS}"]\nwindow = "21:00-09:00"'
    both = throttle(policy(text), Limits(window="18:00-05:00", time_zone="UTC"))
    hours = [datetime(2026, 11, 23, hour, 30, tzinfo=UTC) for hour in range(24)]
    assert [at.hour for at in hours if both.schedule.is_open(at)] == [0, 1, 2, 3, 4, 21, 22, 23]


def test_the_sites_time_zone_is_that_of_its_archives(policy: Policy) -> None:
    text = f'time-zone = "Asia/Tokyo"\n[archive."{PACS}"]\nwindow = "21:00-09:00"'
    limits = policy(text).limits_for(profile())
    assert [one.time_zone for one in limits.values()] == ["Asia/Tokyo", "Asia/Tokyo"]


def test_an_archives_limits_hold_for_it_alone_by_whatever_name(policy: Policy) -> None:
    strict = policy('[archive."PACS@127.0.0.1:104"]\nparallel = 1')
    for address in ("PACS@127.0.0.1:104", "ANY@127.0.0.1:104", "PACS@localhost:104"):
        assert set(strict.limits_for(profile(address))) == {"all", "127.0.0.1.104"}
    for address in ("PACS@127.0.0.1:105", "PACS@192.0.2.1:104"):
        assert set(strict.limits_for(profile(address))) == {"all"}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.2",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::ffff:127.0.0.1]",
        "[::1]",
        "0.0.0.0",
        "LOCALHOST.",
    ],
)
def test_no_spelling_of_an_address_leads_around_a_limit(policy: Policy, host: str) -> None:
    """All of them reach what listens on this computer."""
    strict = policy('[archive."PACS@127.0.0.1:104"]\nparallel = 1')
    assert set(strict.limits_for(profile(f"PACS@{host}:104"))) == {"all", "127.0.0.1.104"}


@pytest.mark.parametrize("host", ["::ffff:10.1.2.3", "[::FFFF:a01:203]", "10.1.2.3"])
def test_an_archive_that_is_allowed_may_be_written_otherwise(policy: Policy, host: str) -> None:
    allowed = policy(f'archives = ["{PACS}", "OLD@pacs.hospital.org:11112"]')
    allowed.check_archive(profile(f"PACS@{host}:104"))
    allowed.check_archive(profile("OLD@pacs.hospital.org.:11112"))
    with pytest.raises(ConfigError, match="does not allow"):
        allowed.check_archive(profile(f"PACS@{host}:105"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """What the name service does, in order: an error, or an address."""
    site_policy._computers_of.cache_clear()
    results: list[object] = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[tuple[object, ...]]:
        result = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(result, OSError):
            raise result
        return [(0, 0, 0, "", (result, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr("dicom_quarry.system.addresses._NAME_INTERVAL", 0.001)
    yield results
    site_policy._computers_of.cache_clear()


def test_a_name_that_does_not_resolve_is_waited_for(policy: Policy, names: list[object]) -> None:
    strict = policy('[archive."PACS@192.0.2.7:104"]\nparallel = 1')
    names += [socket.gaierror(-3, "Temporary failure"), socket.gaierror(-2, "unknown"), "::ffff:192.0.2.7"]
    assert set(strict.limits_for(profile("PACS@pacs.example.org:104"))) == {"all", "192.0.2.7.104"}
    assert names == ["::ffff:192.0.2.7"]


def test_a_name_that_never_resolves_stops_the_job(
    policy: Policy, names: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dicom_quarry.system.addresses._NAME_TIMEOUT", 0.01)
    strict = policy('[archive."PACS@192.0.2.7:104"]\nparallel = 1')
    names += [socket.gaierror(-2, "Name or service not known")]
    with pytest.raises(StartError, match=r"pacs\.example\.org cannot be resolved .*site\.toml cannot be"):
        strict.limits_for(profile("PACS@pacs.example.org:104"))
    assert set(strict.limits_for(profile("PACS@pacs.example.org:105"))) == {"all"}, "no limit to compare with"
    web = ArchiveProfile(
        name="web", dicomweb=BaseUri.parse("http://pacs.example.org/rs"), http={"proxy": "http://proxy:3128"}
    )
    assert set(strict.limits_for(web)) == {"all", "192.0.2.7.104"}, "a proxy may resolve it to anything"


def test_the_lowest_limit_on_the_queries_for_a_row_applies(policy: Policy) -> None:
    own = profile().model_copy(update={"max_queries_per_row": 300})
    assert policy("").row_query_limit(profile()) == 200
    assert policy("").row_query_limit(own) == 300
    assert policy("max-queries-per-row = 250").row_query_limit(profile()) == 200, "a limit raises nothing"
    strict = policy(f'max-queries-per-row = 250\n[archive."{PACS}"]\nmax-queries-per-row = 20')
    assert strict.row_query_limit(own) == 20
    assert "queries for the studies of one row: 20" in strict.describe_limits(own)


def test_it_is_said_which_limits_apply(policy: Policy, file: Path) -> None:
    strict = policy(
        'window = "Mon-Fri 19:00-07:00"\ntime-zone = "America/New_York"\nafter-window = "30m"\nparallel = 2\n'
        f'[archive."{PACS}"]\nqueries-per-second = 5\nstudies-per-hour = 60\nmegabytes-per-second = 12.5\n'
        '[archive."OTHER@10.9.9.9:104"]\nparallel = 1'
    )
    assert strict.describe_limits(profile()) == (
        f"limits of this site, for all jobs of this computer together ({file}): "
        "window Mon-Fri 19:00-07:00 (America/New_York); retrievals are stopped 30m after it closes; "
        "studies at once: 2; queries a second: 5; studies an hour: 60; MB a second: 12.5"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('windows = "19:00-07:00"', "'windows' is not a setting"),
        ('window = "7pm"', "window: '7pm' is not a window"),
        ('time-zone = "Mars/Olympus"', "time-zone: 'Mars/Olympus' is not a time zone"),
        ("parallel = 0", "parallel: "),
        ("max-queries-per-row = 0", "max-queries-per-row: "),
        ("studies-per-hour = 0", "studies-per-hour: "),
        ("queries-per-second = inf", "queries-per-second: "),
        ('after-window = "soon"', "after-window: write finish, or a duration such as 30m"),
        ('archives = ["PACS"]', "'PACS' is not an archive"),
        ('[archive.main]\nwindow = "19:00-07:00"', "'main' is not an archive"),
        (f'[archive."{PACS}"]\nwindow = "7pm"', "window: '7pm'"),
        (f'[archive."{PACS}"]\narchives = []', "is not a setting"),
        ("archive = 3", "archive: "),
        ("window = ", "is not valid TOML"),
    ],
)
def test_a_mistake_stops_the_job_and_names_the_file(policy: Policy, file: Path, text: str, said: str) -> None:
    told = refusal(policy, text)
    assert told.startswith(str(file))
    assert told.count(str(file)) == 1
    assert said in told


def test_a_file_that_cannot_be_read_is_not_a_file_that_is_not_there(file: Path) -> None:
    file.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        site_policy.load_site_policy()


def test_a_folder_that_cannot_be_shared_stops_the_job(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    strict = policy(f'parallel = 2\nshared = "{tmp_path / "plain"}"')
    with pytest.raises(StartError, match="install -d -m 1777"):
        throttle(strict)
    lenient = policy(f'window = "00:00-24:00"\nshared = "{tmp_path / "plain"}"')
    throttle(lenient)  # where nothing is counted, nothing is shared


def test_a_site_s_exclusion_list_holds_for_everybody(policy: Policy, tmp_path: Path) -> None:
    site_list, own = tmp_path / "site.csv", tmp_path / "own.csv"
    site_list.write_text("MRN\n1\n")
    own.write_text("MRN\n2\n")
    policy(f'exclude = ["{site_list}"]')
    flags = {"from": PACS, "to": str(tmp_path / "out"), "exclude": own}
    said = Messages("")
    queries = make_query_context(load_settings(None, flags), said)
    assert [queries.exclusions.match_values({"PatientID": one}) for one in "123"] == [
        "patient ID (list of this site)",
        "patient ID",
        "",
    ]
    queries.report_limits()
    assert said.messages[-2:] == [
        f"exclusion list of this site, for every user ({site_policy.SITE_POLICY_FILE}): 1 patient ID",
        "exclusion list (--exclude): 1 patient ID",
    ]
    site_list.unlink()
    with pytest.raises(InputError, match="exclusion list of this site cannot be used"):
        make_query_context(load_settings(None, flags), said)


def test_no_variable_leads_elsewhere() -> None:
    code = "from dicom_quarry.config import site_policy; print(site_policy.SITE_POLICY_FILE)"
    names = ["QUARRY_SITE", "QUARRY_SITE_FILE", "SITE_FILE", "QUARRY_CONFIG", "XDG_CONFIG_HOME", "HOME"]
    environment = {**os.environ, **dict.fromkeys(names, "/nowhere")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "/etc/quarry/site.toml"


@pytest.mark.parametrize("setting", ["site", "site-file", "shared", "policy"])
def test_no_setting_of_a_user_leads_around_it(tmp_path: Path, setting: str) -> None:
    for table, value in (("", "true"), ("[archive.main]\n", "true")):
        path = tmp_path / "quarry.toml"
        path.write_text(
            f"{table}{setting} = {value}\n" + ("" if table else "[archive.main]\n") + f'address = "{PACS}"'
        )
        with pytest.raises(ConfigError, match="is not a setting"):
            load_settings(path, {"from": "main", "to": "out"})


def test_a_users_limits_come_from_the_archive_s_table(tmp_path: Path) -> None:
    path = tmp_path / "quarry.toml"
    path.write_text(
        f'[archive.main]\naddress = "{PACS}"\nwindow = "19:00-07:00"\ntime-zone = "Asia/Tokyo"\n'
        'after-window = "2h"\nparallel = 2\nqueries-per-second = 4\n'
        "studies-per-hour = 30\nmegabytes-per-second = 0.5"
    )
    settings = load_settings(path, {"from": "main", "to": "out", "parallel": 8})
    (archive,) = settings.archives
    assert (
        build_throttle(archive, settings.parallel, SitePolicy(), Shutdown(), StatusBoard()).max_parallel == 2
    )
    assert archive.grace_seconds == 7200
    assert archive.schedule.is_open(datetime(2026, 11, 23, 10, 30, tzinfo=UTC)), "19:30 in Tokyo"
    assert (archive.queries_per_second, archive.studies_per_hour, archive.megabytes_per_second) == (
        4,
        30,
        0.5,
    )
    assert archive.address == AE("PACS", "10.1.2.3", 104)
