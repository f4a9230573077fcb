"""Settings from quarry.toml and flags: which wins, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.config.settings import DEFAULT_FILEPATH, Settings, load_settings
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE

FLAGS: dict[str, object] = {"from": "PACS@10.1.2.3:104", "to": "out"}


def toml(folder: Path, text: str) -> Path:
    path = folder / "quarry.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path | None, flags: dict[str, object]) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(path, flags)
    return str(refused.value)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No quarry.toml but the test's own."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


def test_flags_alone() -> None:
    settings = load_settings(None, FLAGS)
    assert settings.archives[0].name == "PACS"
    assert settings.archives[0].address == AE("PACS", "10.1.2.3", 104)
    assert settings.local == AE("QUARRY", "", 11112)
    assert (settings.to, settings.state, settings.filepath) == (Path("out"), None, DEFAULT_FILEPATH)
    assert (settings.parallel, settings.whole_patients, settings.skip_bad_rows) == (1, False, False)


def test_flags_win_and_those_not_given_leave_the_word_to_the_file(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        'from = "OLD@old:1"\nto = "there"\nparallel = 4\nwhole-patients = true\nas = "ME:104"\n',
    )
    settings = load_settings(path, {**FLAGS, "parallel": 2, "whole_patients": None, "as": None})
    assert (settings.archives[0].name, settings.to, settings.parallel) == ("PACS", Path("out"), 2)
    assert settings.whole_patients
    assert settings.local == AE("ME", "", 104)
    everything = load_settings(path, {"from": None, "to": None})
    assert (everything.archives[0].name, everything.to, everything.parallel) == ("OLD", Path("there"), 4)


def test_the_file_in_the_current_folder_is_found_and_the_one_named_goes_before(tmp_path: Path) -> None:
    toml(Path(), "parallel = 3")
    assert load_settings(None, FLAGS).parallel == 3
    assert load_settings(toml(tmp_path, "parallel = 5"), FLAGS).parallel == 5


def test_a_named_archive(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        '[archive.main]\naddress = "PACS@10.1.2.3:104"\nmodel = "patient"\nquery-timeout = 5\nsilence = 7.5\n'
        '[archive.old]\naddress = "OLD@old:11112"\n',
    )
    profile = load_settings(path, {**FLAGS, "from": "main"}).archives[0]
    assert (profile.name, profile.address) == ("main", AE("PACS", "10.1.2.3", 104))
    assert (profile.model, profile.query_timeout, profile.silence, profile.settle) == ("patient", 5, 7.5, 10)
    assert load_settings(path, {**FLAGS, "from": "old"}).archives[0].dimse_ae.port == 11112
    message = refusal(path, {**FLAGS, "from": "new"})
    assert (
        message
        == f"no archive is called 'new' (known in {path}: main, old). Use a known name, AET@HOST:PORT or https://HOST/PATH"
    )
    assert "known in quarry.toml: none" in refusal(None, {**FLAGS, "from": "new"})


@pytest.mark.parametrize("spelling", ["skip-bad-rows", "skip_bad_rows"])
def test_dashes_and_underscores_are_the_same(tmp_path: Path, spelling: str) -> None:
    assert load_settings(toml(tmp_path, f"{spelling} = true"), FLAGS).skip_bad_rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "paralel = 2",
            "quarry.toml: 'paralel' is not a setting. Known settings: a",
        ),
        ("parallel = 99", "parallel: Input should be less than or equal to 16 (it is 99)"),
        ("parallel = 0", "parallel: Input should be greater than or equal to 1 (it is 0)"),
        ('whole-patients = "perhaps"', "whole-patients: write true or false (it is 'perhaps')"),
        ('as = "QUARRY"', "'QUARRY' is not a receiver: write AET[@IP]:PORT, as in QUARRY:11112"),
        ('[archive]\nmain = "PACS@h:1"', "each archive needs a table of its own, such as [archive.main]"),
        ("archive = 5", "each archive needs a table of its own, such as [archive.main]"),
        ("parallel = ", "quarry.toml is not valid TOML: "),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(toml(tmp_path, text), FLAGS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model = 'study'", "[archive.main] write address = "),
        ("address = 'PACS'", "'PACS' is not an archive: write AET@HOST:PORT, as in PACS@10.1.2.3:104"),
        ("address = 'P@h:1'\nmodel = 'flat'", "[archive.main] model: Input should be 'study' or 'patient'"),
        ("address = 'P@h:1'\nsettle = 0", "[archive.main] settle: Input should be greater than 0 (it is 0)"),
        ("address = 'P@h:1'\nsilence = 1e9", "[archive.main] silence: Input should be less than or equal to"),
        (
            "address = 'P@h:1'\nsetle = 1",
            "[archive.main] 'setle' is not a setting. Known settings: a",
        ),
    ],
)
def test_a_mistake_in_an_archive_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = toml(tmp_path, f"[archive.main]\n{text}\n")
    assert message in refusal(path, {**FLAGS, "from": "main"})


def test_the_only_archive_of_a_file_need_not_be_named(tmp_path: Path) -> None:
    one = '[archive.main]\naddress = "P@h:1"\n'
    assert [archive.name for archive in load_settings(toml(tmp_path, one), {"to": "out"}).archives] == [
        "main"
    ]
    two = toml(tmp_path, f'{one}[archive.old]\naddress = "P@h:2"\n')
    assert refusal(two, {"to": "out"}) == f"which archive? {two} has main, old: name one, as in --from main"


def test_what_is_not_given_is_asked_for(tmp_path: Path) -> None:
    assert refusal(None, {"to": "out"}).startswith("which archive? Give --from AET@HOST:PORT")
    assert (
        refusal(None, {"from": "P@h:1"}) == "which output folder? Give one with --to, or 'to' in quarry.toml"
    )
    missing = tmp_path / "no.toml"
    assert refusal(missing, FLAGS) == f"{missing} cannot be read: No such file or directory"
    (tmp_path / "latin.toml").write_bytes(b'to = "\xe4"')
    assert "is not valid TOML" in refusal(tmp_path / "latin.toml", FLAGS)


def test_settings_are_frozen_and_survive_the_ledger() -> None:
    settings = load_settings(None, {**FLAGS, "as": "ME@[::1]:104", "state": "s"})
    with pytest.raises(ValueError, match="frozen"):
        settings.parallel = 2  # type: ignore[misc]
    assert Settings.model_validate_json(settings.model_dump_json()) == settings


# -- AE spellings


@pytest.mark.parametrize(
    ("text", "ae"),
    [
        ("PACS@10.1.2.3:104", AE("PACS", "10.1.2.3", 104)),
        ("PACS@pacs.example.org:11112", AE("PACS", "pacs.example.org", 11112)),
        (" PACS @host:104", AE("PACS", "host", 104)),
        ("A B@host:104", AE("A B", "host", 104)),
        ("PACS@[::1]:104", AE("PACS", "::1", 104)),
        ("ABCDEFGHIJKLMNOP@h:65535", AE("ABCDEFGHIJKLMNOP", "h", 65535)),
    ],
)
def test_archives_as_they_are_written(text: str, ae: AE) -> None:
    assert AE.parse_remote(text) == ae


@pytest.mark.parametrize(
    "text",
    [
        *("", "PACS", "PACS@host", "@host:104", " @h:1", "PACS@:104", "PACS:104", "PACS@host:0"),
        *("PACS@host:65536", "PACS@host:1x", "PACS@host:-1", "PACS@host:١", "ABCDEFGHIJKLMNOPQ@h:1"),
        *("A\\B@h:1", "Ä@h:1"),
    ],
)
def test_what_is_no_archive(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not an archive|AE title|port"):
        AE.parse_remote(text)


@pytest.mark.parametrize(
    ("text", "ae"),
    [
        ("QUARRY:11112", AE("QUARRY", "", 11112)),
        ("QUARRY@127.0.0.1:104", AE("QUARRY", "127.0.0.1", 104)),
        ("QUARRY@[::1]:104", AE("QUARRY", "::1", 104)),
    ],
)
def test_receivers_as_they_are_written(text: str, ae: AE) -> None:
    assert AE.parse_local(text) == ae


@pytest.mark.parametrize("text", ["", "QUARRY", ":104", "QUARRY:", "QUARRY:port", "ABCDEFGHIJKLMNOPQ:1"])
def test_what_is_no_receiver(text: str) -> None:
    with pytest.raises(ConfigError, match=r"is not a receiver|AE title|port"):
        AE.parse_local(text)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_a_sentence(text: str) -> None:
    for read in (AE.parse_remote, AE.parse_local):
        try:
            ae = read(text)
        except ConfigError as error:
            assert text in str(error)
        else:
            assert 1 <= len(ae.title) <= 16
            assert 0 < ae.port < 65536
            assert ae.title == ae.title.strip()


@given(st.from_regex(r"[A-Z]{1,16}@([a-z]{1,9}|\[::[0-9a-f]{1,4}\]):[1-9][0-9]{0,3}", fullmatch=True))
def test_an_archive_is_written_as_it_is_read(text: str) -> None:
    assert AE.parse_remote(str(AE.parse_remote(text))) == AE.parse_remote(text)
