"""Mistakes in a notebook: one exception that names the next step, without a chain, and the step works."""

from __future__ import annotations

import _thread
import datetime
import importlib
import inspect
import math
import os
import pkgutil
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest

import dicom_quarry
from dicom_quarry.api import boundary
from dicom_quarry.api.boundary import name_options
from dicom_quarry.api.options import ExtractOptions, PlanOptions
from dicom_quarry.cli.commands import extract as extract_command
from dicom_quarry.cli.commands import plan as plan_command
from dicom_quarry.config.settings import Settings
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.jobs.observer import GuardedObserver
from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import LoggingArchive, Office, Pause
from tests.mistakes import typed_script
from tests.mistakes.commands import Shell

ONE = [{"Accession": "QA00003"}]


@dataclass
class Notebook:
    """A notebook in a folder: calls with the archive and the receiver filled in."""

    shell: Shell

    def extract(self, cohort: Any = ONE, **options: Any) -> dicom_quarry.Result:
        places = {"archive": self.shell.remote, "receiver": self.shell.local, "to": "out"}
        return dicom_quarry.extract(cohort, **{**places, **options})

    def plan(self, cohort: Any = ONE, **options: Any) -> dicom_quarry.Plan:
        return dicom_quarry.plan(cohort, **{"archive": self.shell.remote, **options})


@pytest.fixture
def notebook(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Notebook:
    monkeypatch.chdir(shell.folder)
    return Notebook(shell)


def mistake(call: Callable[[], object], kind: type[Exception] = dicom_quarry.InputError) -> str:
    """Make a mistake; returns its one sentence."""
    with pytest.raises(kind) as raised:
        call()
    error = raised.value
    assert error.__cause__ is None
    assert error.__suppress_context__
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback") == 1
    assert "During handling" not in shown
    assert "direct cause" not in shown
    inner = [
        frame.filename
        for frame in traceback.extract_tb(error.__traceback__)
        if "dicom_quarry" in frame.filename
    ]
    assert {Path(one).name for one in inner} <= {"boundary.py", "job.py"}, "no frame of the inside"
    return str(error)


# -- the names


def test_every_name_works_twice_and_is_in_dir(notebook: Notebook) -> None:
    result = notebook.extract()
    for _ in range(2):
        assert dicom_quarry.report("out").report == result.report
    assert {"open", "report", "retry", "check", "InputError", "JobObserver"} <= set(dir(dicom_quarry))
    for name in dir(dicom_quarry):
        assert getattr(dicom_quarry, name) is getattr(dicom_quarry, name), name
    with pytest.raises(AttributeError, match="no attribute 'exract'"):
        _ = dicom_quarry.exract


def test_no_module_has_the_name_of_a_function() -> None:
    modules = {one.name for one in pkgutil.iter_modules(dicom_quarry.__path__)}
    assert not modules & set(dir(dicom_quarry)), "importing it would replace the function"
    for name in modules - {"__main__"}:
        importlib.import_module(f"dicom_quarry.{name}")
    assert callable(dicom_quarry.report)
    assert callable(dicom_quarry.plan)


def test_a_star_import_leaves_the_builtin_open() -> None:
    code = (
        "import sys\nfrom dicom_quarry import *\nassert open is __builtins__.open\nassert callable(extract)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert dicom_quarry.open.__module__ == "dicom_quarry.api.job"


def test_the_import_loads_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import dicom_quarry; print(sorted(set(sys.modules) - before))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(dicom_quarry.__file__).parents[1])}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "['dicom_quarry', 'dicom_quarry.version']"


# -- options


def test_an_option_that_does_not_exist(notebook: Notebook) -> None:
    text = mistake(lambda: notebook.extract(paralel=2))
    assert text == "extract() has no option 'paralel'. Did you mean parallel?"
    assert notebook.extract(parallel=2).exit_code == 0


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ({"from": "PACS@10.1.2.3:104"}, "archive"),
        ({"as": "QUARRY:11112"}, "receiver"),
        ({"serie": "Modality=CT"}, "series"),
        ({"exclude-list": "optout.csv"}, "exclude"),
        ({"whole_patient": True}, "whole_patients"),
    ],
)
def test_a_name_that_is_another_here(notebook: Notebook, options: dict[str, Any], meant: str) -> None:
    assert mistake(lambda: notebook.extract(**options)).endswith(f"Did you mean {meant}?")


def test_an_option_of_extract_at_plan(notebook: Notebook) -> None:
    text = mistake(lambda: notebook.plan(accept_mismatch=True))
    assert text.startswith("plan() has no option 'accept_mismatch'. ")
    assert notebook.plan().exit_code == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"parallel": "four"}, "parallel: write a whole number, such as 4 (it is 'four')"),
        ({"max_studies": 2.5}, "max-studies: write a whole number, such as 4 (it is 2.5)"),
        ({"keep_free": "much"}, "keep-free: write a number, such as 1.5 (it is 'much')"),
        ({"allow_wildcards": "perhaps"}, "allow-wildcards: write true or false (it is 'perhaps')"),
        ({"yes": 3}, "yes: write True or False (it is 3)"),
        ({"series": 5}, "series: write a text, or a list of texts (it is 5)"),
        ({"where": ["Modality=CT", 3]}, "where.1: write a text (it is 3)"),
        ({"protocol": 2026}, "protocol: write a text (it is 2026)"),
        ({"state": 5}, "state: write the path of a file or folder (it is 5)"),
        (
            {"series": {"Modality": 2.5}},
            "series: write a text, or a list of texts, for 'Modality' (it is 2.5)",
        ),
        ({"update": "yes"}, "update: write True or False (it is 'yes')"),
        ({"notify": "me"}, "notify: write a table of settings (it is 'me')"),
        ({"to": 7}, 'to: write a path such as "out", or a pathlib.Path (it is 7)'),
        ({"config": 7}, 'config: write a path such as "out", or a pathlib.Path (it is 7)'),
        ({"receiver": 11112}, 'receiver: write a text such as "QUARRY:11112" (it is 11112)'),
        (
            {"archive": 104},
            'archive: write a text such as "PACS@10.1.2.3:104", "https://HOST/PATH" or a name',
        ),
    ],
)
def test_a_value_of_the_wrong_type(notebook: Notebook, options: dict[str, Any], text: str) -> None:
    assert mistake(lambda: notebook.extract(**options)).startswith(text)
    assert not Path("out").exists()


def test_options_are_those_of_the_flags_and_of_the_settings() -> None:
    def flags(command: Callable[..., object]) -> set[str]:
        names = {name.rstrip("_") for name in command.__annotations__} - {
            "return",
            "cohort",
            "detach",
            "niffler",
        }
        return {{"from": "archive", "as": "receiver", "config_file": "config"}.get(one, one) for one in names}

    extract = {*ExtractOptions.__annotations__, *PlanOptions.__annotations__}
    arguments = {"archive", "receiver", "config", "to", "update", "queue", "archive_moved"}
    assert flags(extract_command.extract) <= extract | arguments
    own = {"archive", "receiver", "config", "to", "output", "as_json", "detailed"}
    assert flags(plan_command.plan) <= set(PlanOptions.__annotations__) | own
    settings = set(Settings.model_fields) - {"archives", "local", "to", "commands"}
    assert extract - {"yes", "no_diagnosis", "retrieve", "layout"} == settings, (
        "a new setting needs its option"
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("run again with --update to use the rows", "run again with update=True to use the rows"),
        ("Give --from AET@HOST:PORT or 'from'", "Give archive=\"AET@HOST:PORT\" or 'from'"),
        ("add --map 'Accession Num=AccessionNumber'; if", 'add map="Accession Num=AccessionNumber"; if'),
        ("or use --date-format %d/%m/%Y to read it", 'or use date_format="%d/%m/%Y" to read it'),
        ("leave --state out", "leave state out"),
        ("To mend: quarry retry out/ --damaged. Then", "To mend: quarry retry out/ --damaged. Then"),
        ("skip them with --skip-bad-rows (the report", "skip them with skip_bad_rows=True (the report"),
        ("a -- b, 2019-01-01--2019-02-01", "a -- b, 2019-01-01--2019-02-01"),
    ],
)
def test_messages_name_arguments_in_place_of_flags(message: str, text: str) -> None:
    assert name_options(message) == text


def test_what_is_missing_is_named_as_an_argument(notebook: Notebook) -> None:
    assert 'Give archive="AET@HOST:PORT"' in mistake(lambda: dicom_quarry.extract(ONE, to="out"))
    assert "Give one with to" in mistake(lambda: notebook.extract(to=None))
    cohort = [{"Accession Num": "QA00003", "MRN": "Q-TEN"}]
    text = mistake(lambda: notebook.extract(cohort))
    assert 'add map="Accession Num=AccessionNumber"' in text
    assert notebook.extract(cohort, map="Accession Num=AccessionNumber").exit_code == 0


def test_a_path_with_the_home_folder(notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(notebook.shell.folder / "home"))
    table = notebook.shell.folder / "home" / "cohort.csv"
    table.parent.mkdir()
    table.write_text("Accession\nQA00003\n")
    result = notebook.extract("~/cohort.csv", to="~/out")
    assert result.report == table.parent / "out" / "report.csv"
    assert dicom_quarry.status("~/out").state == "finished"
    assert not Path("~").exists()


@pytest.mark.parametrize(
    ("name", "arguments", "options", "text"),
    [
        ("check", ["A@127.0.0.1:9"], {"accession": 4711}, "accession: write a text such as"),
        ("verify", ["out"], {"threads": "two"}, "threads: write a number"),
        ("retry", ["out"], {"damaged": "yes"}, "damaged: write True or False (it is 'yes')"),
        ("release", ["out", "1.2.3"], {}, "out has no study 1.2.3: studies.csv has the UIDs"),
        ("report", [None], {}, 'folder: write a path such as "out"'),
    ],
)
def test_arguments_of_the_other_functions(
    notebook: Notebook, name: str, arguments: list[Any], options: dict[str, Any], text: str
) -> None:
    notebook.extract()
    assert mistake(lambda: getattr(dicom_quarry, name)(*arguments, **options)).startswith(text)
    job: Any = dicom_quarry.open("out")
    assert mistake(lambda: job.wait("long")).startswith("timeout: write a number, such as 60 (it is 'long')")


def test_every_flag_without_a_value_is_known_as_such() -> None:
    found = inspect.get_annotations(extract_command.extract, eval_str=True)
    flags = {name for name, kind in found.items() if _is_bool(kind)}
    assert flags
    assert {name.replace("_", "-") for name in flags} - {"detach"} <= boundary._BOOLEANS


def _is_bool(kind: Any) -> bool:
    return kind is bool or get_args(kind)[:1] == (bool,)


def test_a_plan_for_a_folder_that_is_not_there(notebook: Notebook) -> None:
    plan = notebook.plan()
    assert "there is no folder plans" in mistake(lambda: plan.write("plans/plan.csv"))
    Path("plans").mkdir()
    assert plan.write("plans/plan.csv").is_file()


def test_mappings_and_single_texts_are_options_too(notebook: Notebook) -> None:
    cohort = [{"My Number": "QA00003"}]
    result = notebook.extract(
        cohort, map={"My Number": "AccessionNumber"}, series_not={"Modality": ["SR", "PR"]}
    )
    assert result.exit_code == 0
    assert [study.stored for study in result.studies()] == [2]


# -- the cohort


class Frame:
    """A DataFrame of pandas, as far as it is used."""

    def __init__(self, columns: list[str], rows: list[tuple[object, ...]], index: str | None = None) -> None:
        self.columns = columns
        self.index: Any = type("Index", (), {"names": [index]})
        self._rows = rows

    def itertuples(self, *, index: bool, name: str | None) -> Iterator[tuple[object, ...]]:
        assert (index, name) == (False, None)
        return iter(self._rows)

    def reset_index(self) -> Frame:
        name = self.index.names[0]
        return Frame(
            [name, *self.columns], [(f"QA0000{number}", *row) for number, row in enumerate(self._rows, 3)]
        )


def test_a_cohort_from_memory_leaves_no_path_to_miss(notebook: Notebook) -> None:
    assert notebook.extract([{"Accession": "QA00003"}]).exit_code == 0
    messages: list[str] = []

    class Reader(dicom_quarry.JobObserver):
        def on_message(self, message: str) -> None:
            messages.append(message)

    assert dicom_quarry.resume("out", observer=Reader()).exit_code == 0
    assert messages and not any("the table" in one for one in messages), messages


def test_a_dataframe_and_a_list_of_dicts_are_the_same_job(notebook: Notebook) -> None:
    first = notebook.extract([{"Patient ID": "Q-TEN", "Accession": "QA00003"}, {"Accession": "QA00004"}])
    assert first.exit_code == 0
    frame = Frame(["Patient ID", "Accession"], [("Q-TEN", "QA00003"), (math.nan, "QA00004")])
    assert notebook.extract(frame).exit_code == 0, "an empty cell is empty"
    assert [row.cells for row in dicom_quarry.open("out").rows()] == [("Q-TEN", "QA00003"), ("", "QA00004")]


def test_the_index_of_a_dataframe_is_a_column(notebook: Notebook) -> None:
    result = notebook.extract(Frame(["Group"], [("case",), ("control",)], index="Accession"))
    assert result.exit_code == 0
    assert [row.cells for row in result.rows()] == [("QA00003", "case"), ("QA00004", "control")]


def test_values_of_cells_are_as_a_person_writes_them(notebook: Notebook) -> None:
    day = datetime.date(2019, 4, 4)
    midnight = datetime.datetime(2019, 4, 4, tzinfo=datetime.UTC)
    rows = [
        {"Accession": "QA00003", "n": 134, "d": day, "f": 4711.0, "x": None},
        {"Accession": "QA00004", "n": Decimal("1.50"), "d": midnight, "f": 0.25, "x": True},
    ]
    result = notebook.extract(rows)
    assert [row.cells[1:] for row in result.rows()] == [
        ("134", "2019-04-04", "4711", ""),
        ("1.50", "2019-04-04", "0.25", "True"),
    ]


@pytest.mark.parametrize(
    ("cohort", "text"),
    [
        (
            4711,
            "the cohort is of the type int. Give a path, a DataFrame, or a list of dicts such as [",
        ),
        ({"EMPI": ["1", "2"]}, "the cohort is of the type dict. Give a path"),
        ([("1", "A1")], "row 1 of the cohort has the type tuple. Give a path"),
        ([], "the cohort has no rows. Give a path"),
        (
            [{"Accession": ["A1", "A2"]}],
            "the list, row 1, Accession: the value is a list. Write one text in each",
        ),
        (
            [{"Accession": 12345678901234567890.0}],
            "the list, row 1, Accession: 1.2345678901234567e+19 is a rounded",
        ),
        ("cohrt.csv", "cohrt.csv: cannot be read (No such file or directory)"),
        ("Accession\nQA00003\n", "the cohort is the text of a table. Give a path"),
    ],
)
def test_a_cohort_that_is_none(notebook: Notebook, cohort: Any, text: str) -> None:
    assert mistake(lambda: notebook.extract(cohort)).startswith(text)
    assert notebook.extract(ONE).exit_code == 0


def test_a_row_that_cannot_be_used_is_named_without_a_temporary_file(notebook: Notebook) -> None:
    cohort = [{"Accession": "QA00003"}, {"Accession": "QA*"}]
    text = mistake(lambda: notebook.extract(cohort))
    assert text.startswith("the list: ")
    assert "cohort.csv" not in text
    result = notebook.extract(cohort, skip_bad_rows=True)
    assert [row.outcome.status for row in result.rows()] == ["complete", "invalid_row"]


# -- jobs


@pytest.mark.parametrize("call", ["open", "status", "resume", "retry", "report", "verify", "release"])
def test_a_folder_without_a_job(notebook: Notebook, call: str) -> None:
    function = getattr(dicom_quarry, call)
    Path("empty").mkdir()
    assert "empty" in mistake(lambda: function("empty"))
    assert mistake(lambda: function(5)).startswith('folder: write a path such as "out"')
    notebook.extract()
    function("out")


def test_an_outcome_that_does_not_exist(notebook: Notebook) -> None:
    notebook.extract([{"Accession": "NOBODY"}])
    text = mistake(lambda: dicom_quarry.retry("out", ["notfound"]))
    assert text.startswith("'notfound' is not an outcome. Outcomes are: complete, excluded, ")
    assert "not_found" in text
    assert dicom_quarry.retry("out", ["not_found"]).exit_code == 1
    assert "leave one of them out" in mistake(lambda: dicom_quarry.retry("out", "not_found", damaged=True))


def test_a_changed_cohort_names_update(notebook: Notebook) -> None:
    notebook.extract()
    both = [*ONE, {"Accession": "QA00004"}]
    assert "update" in mistake(lambda: notebook.extract(both))
    assert notebook.extract(both, update=True).exit_code == 0


def test_a_problem_for_a_person_is_in_the_result(notebook: Notebook, archive: DemoArchive) -> None:
    place = archive.destinations.pop("QUARRY")
    result = notebook.extract(retrieve="move")
    assert result.exit_code == 4
    assert "does not know the destination" in result.problem
    archive.destinations["QUARRY"] = place
    again = notebook.extract(retrieve="move")
    assert (again.exit_code, again.problem) == (0, "")


def test_an_archive_that_is_not_there(notebook: Notebook) -> None:
    text = mistake(lambda: notebook.extract(archive="PACS@127.0.0.1:9"), dicom_quarry.StartError)
    assert "127.0.0.1" in text
    assert isinstance(dicom_quarry.StartError("x"), dicom_quarry.QuarryError)


def test_check_from_python(notebook: Notebook) -> None:
    shell = notebook.shell
    done = dicom_quarry.check(shell.remote, receiver=shell.local, accession="QA00003")
    assert not done.failed
    assert "C-MOVE" in [step.name for step in done.steps]
    assert "# Access for a research extraction" in done.access_request()
    assert "which archive?" in mistake(dicom_quarry.check)


def test_release_from_python_needs_no_loop(notebook: Notebook) -> None:
    notebook.extract()
    released = dicom_quarry.release("out", delete=True)
    assert [one.outcome for one in released] == ["released"]
    assert not list(Path("out").rglob("*.dcm"))


# -- the observer


class Broken(dicom_quarry.JobObserver):
    """An observer with a defect."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_message(self, message: str) -> None:
        self.seen.append(message)
        raise ZeroDivisionError("division by zero")

    def on_progress(self, snapshot: dicom_quarry.Snapshot) -> None:
        raise KeyError("rows")


def test_a_defect_of_the_observer_never_ends_a_job(notebook: Notebook) -> None:
    observer, listed = Broken(), notebook.shell.table("Accession\nOTHER\n", "optout.csv")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = notebook.extract([*ONE, {"Accession": "NOBODY"}], exclude=listed, observer=observer)
    assert result.exit_code == 1
    texts = [str(one.message) for one in caught if "the observer's" in str(one.message)]
    assert sorted(texts) == [
        "the observer's on_message raised ZeroDivisionError: division by zero. The job goes on",
        "the observer's on_progress raised KeyError: 'rows'. The job goes on",
    ], "once each"
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert notebook.extract(to="other", observer=observer).exit_code == 0


def test_an_observer_that_is_a_function(notebook: Notebook) -> None:
    text = mistake(lambda: notebook.extract(observer=print))
    assert "class Mine(dicom_quarry.JobObserver)" in text
    seen: list[str] = []

    class Mine(dicom_quarry.JobObserver):
        def on_message(self, message: str) -> None:
            seen.append(message)

    notebook.extract(exclude=notebook.shell.table("Accession\nOTHER\n", "optout.csv"), observer=Mine())
    assert seen == ["exclusion list (--exclude): 1 accession"]


def test_every_callback_is_guarded() -> None:
    callbacks = [name for name in vars(dicom_quarry.JobObserver) if name.startswith("on_")]
    assert callbacks
    assert all(name in vars(GuardedObserver) for name in callbacks)


# -- a job that runs


@pytest.fixture
def paused(tmp_path: Path) -> Iterator[tuple[Office, Pause]]:
    pause = Pause(after=1)
    with LoggingArchive(demo_holding(), [pause]) as archive:
        yield Office(tmp_path, archive), pause


def test_cancel_from_another_cell(paused: tuple[Office, Pause]) -> None:
    office, pause = paused
    with office.start(["Accession", "QA00003", "QA00004"]) as run:
        assert pause.reached.wait(60)
        job = dicom_quarry.open(office.folder / "out")
        assert (job.is_running, job.status().process) == (True, os.getpid())
        assert job.wait(0).process == os.getpid(), "it does not wait longer than it may"
        assert job.cancel()
        assert job.wait().process is None
        assert run.wait().exit_code == 4
        assert not job.cancel(), "nothing runs any more"
        assert job.status().state == "not finished"
        pause.go_on.set()
        assert office.extract(["Accession", "QA00003", "QA00004"]).exit_code == 0, "the same call goes on"


def test_stop_finishes_the_study_in_transfer(paused: tuple[Office, Pause]) -> None:
    office, pause = paused
    with office.start(["Accession", "QA00003", "QA00004"]) as run:
        assert pause.reached.wait(60)
        job = dicom_quarry.open(office.folder / "out")
        assert job.stop()
        pause.go_on.set()
        assert run.wait().exit_code == 4
        assert sorted(row.outcome.status for row in job.rows()) == ["complete", "pending"]
        assert [study.stored for study in job.studies() if study.outcome.status == "complete"] == [3]
        assert job.resume().exit_code == 0


def test_an_interrupted_kernel_cancels_the_job(paused: tuple[Office, Pause]) -> None:
    office, pause = paused
    rows = ["Accession", "QA00003", "QA00004"]

    def interrupt() -> None:
        assert pause.reached.wait(60)
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        office.extract(rows)
    job = dicom_quarry.open(office.folder / "out")
    assert not job.is_running
    assert not job.cancel()
    pause.go_on.set()
    assert office.extract(rows).exit_code == 0


def test_a_second_call_while_the_job_runs(paused: tuple[Office, Pause]) -> None:
    office, pause = paused
    with office.start(["Accession", "QA00003"]) as run:
        assert pause.reached.wait(60)
        text = mistake(lambda: dicom_quarry.retry(office.folder / "out"), dicom_quarry.StartError)
        assert "out" in text
        pause.go_on.set()
        assert dicom_quarry.open(office.folder / "out").wait().state == "finished"
        assert run.wait().exit_code == 0


# -- types


def test_the_typed_script_runs(notebook: Notebook) -> None:
    shell = notebook.shell
    assert typed_script.fetch(shell.remote, shell.local, shell.folder / "typed") == []


def test_mypy_accepts_the_typed_script_and_finds_its_mistakes() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", typed_script.__file__],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
