"""Plays a scenario against the whole product, and looks at what came of it."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.model import AE
from tests.e2e.command import check_folder, files
from tests.faults.scenario import ArchiveRequests, Scenario, by_accession
from tests.peers.process import free_port
from tests.scripted.archive import ScriptedArchive, Seen

#: Times of the profile, in seconds, which a scenario may change.
TIMES = {"settle": 0.3, "silence": 5.0, "query-timeout": 5.0}

#: Far more than any job here takes: only a job that does not end by itself gets there.
DEADLINE = 60.0


@dataclass
class Stage:
    """A folder, a port of ours, and the jobs that are run there."""

    folder: Path
    port: int = field(default_factory=free_port)
    messages: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def local(self) -> str:
        return f"QUARRY@127.0.0.1:{self.port}"

    @property
    def ae(self) -> AE:
        return AE("QUARRY", "127.0.0.1", self.port)

    def cohort(self, content: str | bytes) -> Path:
        path = self.folder / "cohort.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def config(self, archives: Mapping[str, AE | str], **profile: object) -> Path:
        """A quarry.toml with these archives, entities or bases of web services, all treated alike."""
        lines = []
        for name, ae in archives.items():
            # By the one transport of the scenario, unless it sets another. Listed by series, where an answer
            # can be lost at two levels. A value of None leaves the default.
            dimse = {"address": str(ae), "retrieve": "move", "relational": False}
            where = dimse if isinstance(ae, AE) else {"dicomweb": ae}
            values: dict[str, object] = {
                **where,
                **TIMES,
                **{key.replace("_", "-"): v for key, v in profile.items()},
            }
            lines += [
                f"[archive.{name}]",
                *(f"{key} = {_toml(value)}" for key, value in values.items() if value is not None),
            ]
        path = self.folder / "quarry.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def extract(
        self,
        cohort: str | bytes,
        archives: Mapping[str, AE] | Mapping[str, str],
        profile: Mapping[str, object],
        **options: object,
    ) -> api.Result:
        """Run the job to its end; raises what it raises."""
        stage = self

        class Ear(JobObserver):
            def on_message(self, message: str) -> None:
                stage.messages.append(message)

            def on_cohort_read(
                self, mapping: Sequence[tuple[str, str]], rows: int, notes: Sequence[str]
            ) -> None:
                stage.notes += notes

        return api.extract(
            self.cohort(cohort),
            archive=",".join(archives),
            to=self.out,
            receiver=self.local,
            config=self.config(archives, **profile),
            observer=Ear(),
            **{"keep_free": 0, **options},  # type: ignore[arg-type]
        )


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def address(archive: ScriptedArchive) -> AE:
    """Return the address of an archive."""
    return AE(archive.title, archive.host, archive.port)


def scripted(scenario: Scenario, stage: Stage) -> ScriptedArchive:
    """The scenario's archive, which knows us."""
    return ScriptedArchive(
        scenario.studies, scenario.faults(), destinations={"QUARRY": ("127.0.0.1", stage.port)}
    )


def play(scenario: Scenario, folder: Path, **options: object) -> Stage:
    """Run the job with further ``options``, and compare all that came of it with what must."""
    stage = Stage(folder)
    with scripted(scenario, stage) as archive:
        cohort = scenario.cohort or by_accession(scenario.studies)
        archives = {"main": address(archive)}
        result = stage.extract(cohort, archives, scenario.profile, **scenario.options, **options)
        _the_job_has_ended()
        log = list(archive.log)
    print(*stage.messages, *outcomes(result), sep="\n")
    check(scenario, stage, result, log)
    return stage


def check(scenario: Scenario, stage: Stage, result: api.Result, log: list[Seen]) -> None:
    """Everything that a scenario states."""
    assert outcomes(result) == list(scenario.rows)
    assert count_requests(log, scenario.studies, like=scenario.requests) == scenario.requests
    assert stored(stage.out, scenario.studies) == (*scenario.stored, scenario.apart)
    assert result.exit_code == scenario.exit_code
    texts = [*stage.messages, *(row.outcome.reason for row in result.rows())]
    for words in scenario.messages:
        assert any(words in text for text in texts), words
    for words in scenario.silent:
        assert not any(words in text for text in texts), words
    if result.exit_code != 4 and not scenario.unlisted:
        check_folder(stage.out)
    listed = sum(study.stored for study in result.studies())
    assert sum(scenario.stored) + scenario.apart - listed == scenario.unlisted


def outcomes(result: api.Result) -> list[tuple[str, str]]:
    """Outcome and code of every row."""
    return [(row.outcome.status.value, row.outcome.code) for row in result.rows()]


def count_requests(
    log: Iterable[Seen],
    studies: Iterable[DemoStudy],
    *,
    like: ArchiveRequests = ArchiveRequests(),  # noqa: B008 (frozen)
) -> ArchiveRequests:
    """Count the requests to the archive; fields that are None in ``like`` are left out."""
    log = list(log)
    finds = Counter(seen.level for seen in log if seen.kind == "find")
    associations = sum(seen.kind == "associate" for seen in log)
    moves = tuple(" ".join(_moves(log, study)) for study in studies)
    levels = (finds["STUDY"], finds["SERIES"], finds["IMAGE"])
    if like.moves is None:
        assert like.at_most is not None
        assert sum(seen.kind == "move" for seen in log) <= like.at_most
    return ArchiveRequests(
        None if like.moves is None else moves,
        None if like.finds is None else levels,
        None if like.associations is None else associations,
        like.at_most,
    )


def _moves(log: Iterable[Seen], study: DemoStudy) -> Iterable[str]:
    for seen in log:
        if seen.kind == "move" and seen.keys.get("StudyInstanceUID", "").strip("\0 ") == study.study_uid:
            yield f"IMAGE:{len(seen.uids)}" if seen.level == "IMAGE" else seen.level


def stored(out: Path, studies: Iterable[DemoStudy]) -> tuple[int, ...]:
    """The files of each study in the tree, and last those of anything else, or kept apart."""
    found = [Path(name) for name in files(out)]
    usual = [path for path in found if path.parts[0] != "mismatch"]
    counts = [sum(study.study_uid in path.parts for path in usual) for study in studies]
    return (*counts, len(found) - sum(counts))


def _the_job_has_ended() -> None:
    """No thread of the job is left behind."""
    names = {"schedule", "ledger", "receiver", "association"}
    left = [
        t.name for t in threading.enumerate() if t.name in names or t.name.startswith(("query-", "retrieve-"))
    ]
    assert not left
