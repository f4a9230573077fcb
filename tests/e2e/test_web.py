"""Jobs over DICOMweb as a user runs them: real processes, a real Orthanc, a real kill."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry.demo.dicomweb_services import CloseConnection, WebRequest, WebResponse
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, check_folder, digests, files, manifest, outcomes, quarry, until
from tests.e2e.conftest import Site
from tests.peers.corpus import Corpus
from tests.scripted.web import ScriptedWeb, WebFault
from tests.scripted.web_faults import anything, web_page


@pytest.mark.archive
def test_every_file_is_the_one_that_orthanc_was_given(orthanc: Site, corpus: Corpus, work: Path) -> None:
    cohort = work / "cohort.csv"
    cohort.write_text("\n".join(["StudyInstanceUID", *orthanc.holding.studies]) + "\n")
    done = quarry("extract", cohort, "--from", orthanc.base, "--to", "out", "--parallel", 3, cwd=work)
    assert done.code == 0, done.out + done.err
    given = {item.sop_uid: hashlib.sha256(item.path.read_bytes()).hexdigest() for item in corpus.items}
    assert {row["sop_uid"]: row["sha256"] for row in manifest(work / "out")} == given
    check_folder(work / "out")
    assert quarry("verify", work / "out").code == 0


class _Held(WebFault):
    """So many instances of a study and a bit, then nothing until ``go_on``, and the end."""

    def __init__(self, instances: int) -> None:
        super().__init__()
        self._instances = instances
        self.go_on = threading.Event()

    def reply(self, web: ScriptedWeb, request: WebRequest, reply: WebResponse) -> WebResponse:
        if request.is_search or request.query.level != "STUDY" or self.go_on.is_set():
            return reply
        return replace(reply, chunks=self._slowly(reply))

    def _slowly(self, reply: WebResponse) -> Iterator[bytes | memoryview]:
        assert reply.chunks is not None
        sent = 0
        for piece in reply.chunks:
            yield piece
            sent += bytes(piece[:4]) == b"--qu"  # a boundary
            if sent > self._instances:
                yield bytes(1 << 17)  # the server gathers small pieces: this pushes them out
                self.go_on.wait(60)
                raise CloseConnection


def test_killed_in_mid_study_what_was_whole_is_kept_and_the_rest_fetched_by_instance(work: Path) -> None:
    (study,) = generate_studies(1, seed=41, images=12)
    (work / "cohort.csv").write_text(f"Accession\n{study.accession}\n")
    held = _Held(instances=5)
    with ScriptedWeb([study], [held]) as web:
        command = ("extract", work / "cohort.csv", "--from", web.base_url, "--to", work / "out")
        with Running(work / "output", *command) as running:
            until(running, "some instances", lambda: len(files(work / "out")) >= 4)
            running.kill()
        kept = digests(work / "out")
        assert 4 <= len(kept) < 12
        held.go_on.set()
        web.log.clear()
        done = quarry(*command)
        assert done.code == 0, done.err
        asked = [one.query for one in web.log if not one.is_search]
    assert [query.level for query in asked] == ["IMAGE"] * (12 - len(kept))
    assert not {uid for query in asked for uid in query.values("SOPInstanceUID")} & {
        Path(name).stem for name in kept
    }
    assert outcomes(work / "out") == [("complete", "all_listed_stored")]
    assert kept.items() <= digests(work / "out").items()
    check_folder(work / "out")


class _Together(WebFault):
    """Answers a question about a row when another one is put, too, or none has come for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.most = self._now = 0
        self._several = threading.Event()

    def intercept(self, web: ScriptedWeb, request: WebRequest) -> WebResponse | None:
        if not request.is_search or not request.query.values("AccessionNumber"):
            return None
        self._now += 1
        self.most = max(self.most, self._now)
        if self._now > 1:
            self._several.set()
        self._several.wait(1.0)
        self._now -= 1
        return None


@pytest.mark.parametrize(("parallel", "most"), [(1, 1), (2, 2)])
def test_rows_are_asked_about_side_by_side_where_studies_may_be_fetched_so(
    work: Path, parallel: int, most: int
) -> None:
    studies = generate_studies(3, seed=45, images=1)
    (work / "cohort.csv").write_text("\n".join(["Accession", *(one.accession for one in studies)]) + "\n")
    together = _Together()
    with ScriptedWeb(studies, [together]) as web:
        command = ("extract", work / "cohort.csv", "--from", web.base_url, "--to", work / "out")
        done = quarry(*command, "--parallel", parallel)
    assert done.code == 0, done.err
    assert together.most == most
    check_folder(work / "out")


def test_ctrl_c_twice_ends_a_retrieval_that_says_nothing(work: Path) -> None:
    (study,) = generate_studies(1, seed=42, images=3)
    (work / "cohort.csv").write_text(f"Accession\n{study.accession}\n")
    with ScriptedWeb([study], [_Held(instances=0)]) as web:
        command = ("extract", work / "cohort.csv", "--from", web.base_url, "--to", work / "out")
        with Running(work / "output", *command) as running:
            until(running, "the retrieval", lambda: any(not one.is_search for one in web.log))
            running.interrupt()
            until(running, "the first Ctrl-C to be heard", lambda: "stopping" in running.output)
            running.interrupt()
            assert running.wait() == 4


def test_check(work: Path) -> None:
    (study,) = generate_studies(1, seed=44, images=3)
    with ScriptedWeb([study]) as web:
        good = quarry("check", "--from", web.base_url, "--accession", study.accession, "--save", cwd=work)
        assert good.code == 0, good.out + good.err
        assert "3 of 3 instances" in good.out
        assert f'dicomweb = "{web.base_url}"' in (work / "quarry.toml").read_text()
        web.faults.append(web_page(anything))
        bad = quarry("check", "--from", web.base_url, cwd=work)
        assert bad.code == 1
        assert "a web page" in bad.out
        letter = quarry("check", "--from", web.base_url, "--letter", "letter.md", cwd=work)
        assert letter.code == 1
        assert web.base_url in (work / "letter.md").read_text()
    assert study.accession not in good.out + good.err


def test_a_plan_is_used(work: Path) -> None:
    studies = generate_studies(2, seed=43)
    (work / "cohort.csv").write_text("Accession\n" + "\n".join(one.accession for one in studies) + "\n")
    with ScriptedWeb(studies) as web:
        planned = quarry("plan", "cohort.csv", "--from", web.base_url, cwd=work)
        assert planned.code == 0, planned.err
        assert not [one for one in web.log if not one.is_search]
        done = quarry("extract", "cohort.csv", "--from", web.base_url, "--to", "out", cwd=work)
    assert done.code == 0, done.err
    assert "query results of your plan" in done.out


def test_http_beyond_this_computer_is_warned_of(work: Path) -> None:
    (work / "cohort.csv").write_text("Accession\n1\n")
    done = quarry("extract", "cohort.csv", "--from", "http://192.0.2.1:9/x", "--to", "out", cwd=work)
    assert done.code == 3
    assert "http://192.0.2.1:9/x is not https" in done.out + done.err
