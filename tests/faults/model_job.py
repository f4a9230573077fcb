"""A job against a model of an archive, and all that must hold of it, whatever the archive does."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from hypothesis import HealthCheck, Phase, find, given, seed, settings
from hypothesis.errors import NoSuchExample

from dicom_quarry import api
from dicom_quarry.errors import StartError
from dicom_quarry.ledger.views import RowView
from dicom_quarry.model import SETTLED, OutcomeStatus
from tests.e2e.command import check_folder, files
from tests.faults.archive_model import Connection, Model, Row, models
from tests.faults.model_servers import ModelArchive, ModelWeb
from tests.faults.scenario_runner import DEADLINE, Stage, address
from tests.faults.short_delays import hasten
from tests.peers.process import free_port

#: Times of the profile, in seconds.
_TIMES = {"settle": 0.05, "silence": 2.0, "query-timeout": 2.0}

#: Most queries of one row at STUDY level: 200 for parts of an answer, and those that explain a row.
_MAX_ROW_QUERIES = 210


class Defect(AssertionError):
    """A job that breaks its promise; ``kind`` is the same for all defects of one kind."""

    def __init__(self, kind: str, detail: object = "") -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


def require(condition: object, kind: str, detail: object = "") -> None:
    """Raise Defect unless the condition is true."""
    if not condition:
        raise Defect(kind, detail)


@dataclass
class Played:
    """The end of a job: its rows, the files on the disk, and the STUDY level queries by their keys."""

    rows: list[RowView] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    exit_code: int = -1
    not_started: str = ""
    queries: list[dict[str, str]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


def play(model: Model) -> Played:
    """Run the job of a model to its end, and check all that came of it."""
    with tempfile.TemporaryDirectory(dir=_fast_folder(), prefix="quarry-model-") as folder:
        stage = Stage(Path(folder))
        played = _run(model, stage)
        while played.not_started and "cannot be used" not in played.not_started:
            # Another program was faster to take this port.
            stage.port = free_port()
            played = _run(model, stage)
        played.files = files(stage.out) if stage.out.is_dir() else set()
        check(model, played)
        if played.exit_code in (0, 1):
            check_folder(stage.out)
        return played


def _fast_folder() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run(model: Model, stage: Stage) -> Played:
    played = Played(messages=stage.messages)
    errors: list[BaseException] = []
    server = ModelWeb(model) if model.transport == "web" else ModelArchive(model, stage.port)
    with server:
        place = server.base_url if isinstance(server, ModelWeb) else address(server)

        def job() -> None:
            try:
                result = _extract(model, stage, {"main": place})  # type: ignore[dict-item]
                played.rows, played.exit_code = list(result.rows()), result.exit_code
            except StartError as error:
                played.not_started = str(error)
            except BaseException as error:  # noqa: BLE001 (raised below)
                errors.append(error)

        thread = threading.Thread(target=job, name="job", daemon=True)
        thread.start()
        thread.join(DEADLINE)
        require(not thread.is_alive(), "the job does not end", stage.messages[-3:])
        played.queries = _study_queries(server)
    if errors:
        raise errors[0]
    return played


def _study_queries(server: ModelWeb | ModelArchive) -> list[dict[str, str]]:
    if isinstance(server, ModelWeb):
        queries = [one.query for one in server.requests(search=True, level="STUDY") if not one.offset]
        return [dict(query.keys) for query in queries]
    return [dict(seen.keys) for seen in server.requests("find", "STUDY")]


def _extract(model: Model, stage: Stage, archives: dict[str, str]) -> api.Result:
    profile: dict[str, object] = {**_TIMES}
    if model.transport != "web":
        profile["retrieve"] = model.transport
    if model.answers.cap and model.answers.cap_end == "known":
        profile["result_cap"] = model.answers.cap
    options: dict[str, object] = {}
    if model.excluded:
        path = stage.folder / "excluded.csv"
        path.write_text("\n".join(["MRN", *model.excluded]) + "\n", encoding="utf-8")
        options["exclude"] = [path]
    if model.where:
        options["where"] = (f"Modality={model.where}",)
    if model.selects:
        options["series"] = (f"Modality={model.selects}",)
    return stage.extract(
        model.table(),
        archives,
        profile,
        whole_patients=True,
        allow_several_patients=model.several,
        parallel=model.parallel,
        give_up_after=5,
        **options,
    )


# -- what must hold


def check(model: Model, played: Played) -> None:
    """Raise Defect if the job broke a promise."""
    _check_disk(model, played)
    _check_queries(model, played)
    if played.not_started:
        require(model.connection != Connection(), "the job does not start", played.not_started)
        return
    require(len(played.rows) == len(model.rows), "a row has no outcome", len(played.rows))
    for row, view in zip(model.rows, played.rows, strict=True):
        if view.outcome.status is OutcomeStatus.COMPLETE:
            _check_complete(model, played, row, view)
        else:
            _check_explained(model, row, view)
    settled = all(view.outcome.status in SETTLED for view in played.rows)
    require(settled or played.exit_code != 0, "exit code 0, and a row needs attention")


def _check_complete(model: Model, played: Played, row: Row, view: RowView) -> None:
    wanted = model.wanted(row)
    uids = {model.build_studies()[at].study_uid for at in wanted}
    require(wanted, "complete, and no study is meant", view)
    require(set(view.study_uids) <= uids, "complete with a study that is not meant", view)
    require(set(view.study_uids) == uids, "complete, and a study is missing", view)
    expected = {path for at in wanted for path in _paths(model, at)}
    stored = {_place(name) for name in played.files}
    require(expected <= stored, "complete, and an instance is missing", sorted(expected - stored))
    require(view.instances_stored == len(expected), "complete with a wrong number of instances", view)


def _check_explained(model: Model, row: Row, view: RowView) -> None:
    outcome, wanted = view.outcome, model.wanted(row)
    require(outcome.reason, "an outcome without a reason", outcome.code)
    if outcome.status is OutcomeStatus.PENDING:
        disturbed = model.connection != Connection() or model.sendings
        require(disturbed, "the job ends early, and no person must act", view)
    if outcome.status is OutcomeStatus.FILTERED:
        require(model.where or model.selects, "filtered without a condition", view)
        require(not wanted, "filtered, and a study is wanted", view)
    if model.is_honest and wanted and not model.excluded:
        require(False, "an honest archive, and the row is not complete", (row, outcome))


def _check_disk(model: Model, played: Played) -> None:
    allowed = {path for row in model.rows for at in model.wanted(row) for path in _paths(model, at)}
    forbidden = {
        path
        for at, study in enumerate(model.studies)
        if model.is_excluded(study.inside or "") or model.is_excluded(study.patient)
        for path in _paths(model, at)
    }
    for name in played.files:
        require(_place(name) not in forbidden, "a file of an excluded patient", name)
        require(_place(name) in allowed, "a file that no row means", name)


def _check_queries(model: Model, played: Played) -> None:
    keys = ("PatientID", "AccessionNumber", "StudyInstanceUID")
    for query in played.queries:
        named = any(query.get(key, "").strip("*? ") for key in keys)
        require(named, "a query that names no patient, accession or study", query)
    # A near miss is searched in upper and in lower case, too.
    known = {
        value.casefold() for row in model.rows for name, value in model.cells(row).items() if name == "MRN"
    }
    patients = {query.get("PatientID", "").casefold() for query in played.queries} - {""}
    # A server that reads URLs as UTF-8 does not see the letters of another spelling.
    strangers = {
        one for one in patients if not any(fnmatchcase(row, one.replace("\ufffd", "*")) for row in known)
    }
    require(not strangers, "a query for a patient whom no row names", strangers)
    limit = _MAX_ROW_QUERIES * len(model.rows)
    if model.connection == Connection():
        require(len(played.queries) <= limit, "too many queries", len(played.queries))


Place = tuple[str, str, str]


def _paths(model: Model, at: int) -> set[Place]:
    study_uid = model.build_studies()[at].study_uid
    return {(study_uid, series_uid, sop_uid) for sop_uid, series_uid in model.instances(at).items()}


def _place(name: str) -> Place:
    """Return study, series and instance of a file, in the tree or in the folder for mismatches."""
    path = PurePosixPath(name)
    return path.parts[-3], path.parts[-2], path.stem


# -- many models

_SEARCH = settings(max_examples=300, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Tally:
    """What came of many models."""

    models: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    defects: dict[str, list[Model]] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Add the counts and defects of another tally."""
        self.models += other.models
        self.codes += other.codes
        for kind, found in other.defects.items():
            self.defects.setdefault(kind, []).extend(found)


def run_many(count: int, number: int) -> Tally:
    """Play ``count`` models, chosen by the seed ``number``."""
    chosen: list[Model] = []

    @seed(number)
    @settings(_SEARCH, max_examples=count, phases=[Phase.generate])
    @given(models())
    def choose(model: Model) -> None:
        chosen.append(model)

    choose()
    tally = Tally()
    for model in chosen:
        tally.models += 1
        try:
            played = play(model)
            tally.codes.update(view.outcome.code for view in played.rows)
            tally.codes.update(["not started"] if played.not_started else [])
        except Exception as error:  # noqa: BLE001 (any error is a defect)
            tally.defects.setdefault(_kind(error), []).append(model)
    return tally


def _kind(error: Exception) -> str:
    return error.kind if isinstance(error, Defect) else f"{type(error).__name__}: {error}"[:100]


def minimal(kind: str, found: Sequence[Model]) -> Model:
    """Return a small model with this kind of defect, at most as large as those that were found."""

    def fails(model: Model) -> bool:
        try:
            play(model)
        except Exception as error:  # noqa: BLE001 (any error is a defect)
            return _kind(error) == kind
        return False

    shortest = min(found, key=lambda one: len(repr(one)))
    try:
        return min(find(models(), fails, settings=_SEARCH), shortest, key=lambda one: len(repr(one)))
    except NoSuchExample:
        return shortest


def prepare() -> None:
    """Shorten the pauses, and keep the jobs of these models out of the user's list."""
    hasten(setattr)
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(dir=_fast_folder(), prefix="quarry-state-")


def main(arguments: Sequence[str]) -> None:
    """Play so many models, from a seed on, and print what came of them."""
    count = int(arguments[0]) if arguments else 1000
    first = int(arguments[1]) if arguments[1:] else time.time_ns() % 10**6
    workers = int(arguments[2]) if arguments[2:] else (os.cpu_count() or 1)
    started, tally = time.monotonic(), Tally()
    batch = 200
    with ProcessPoolExecutor(workers, initializer=prepare) as pool:
        jobs = [pool.submit(run_many, batch, first + at) for at in range(-(-count // batch))]
        for job in jobs:
            tally.add(job.result())
    print(f"{tally.models} models in {time.monotonic() - started:.0f} s, seeds from {first}")
    for code, number in tally.codes.most_common():
        print(f"{number:8}  {code}")
    prepare()
    for kind, found in tally.defects.items():
        print(f"\n{len(found)} times: {kind}", *sorted(map(repr, found), key=len)[:3], sep="\n    ")
        print(f"smallest:\n    {minimal(kind, found)!r}")
