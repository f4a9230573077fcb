"""A server with one finished job, and what its pages may not show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.api import job_key, report
from dicom_quarry.jobs.registry import register
from tests.e2e.finished_job import record_job
from tests.web.web_server import WebServer


class Site:
    """A server, and the folder of the job that it shows."""

    def __init__(self, server: WebServer, out: Path, state_home: Path) -> None:
        self.server, self.out, self.state_home = server, out, state_home
        self.job = f"/jobs/{job_key(out)}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The default: read-only, without identifiers, on a Unix socket; with an open session."""
    work = tmp_path_factory.mktemp("web")
    state_home, out = work / "state", work / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(state_home))
        record_job(out, studies=60, files=1)
        register(out)
        report(out)
        with WebServer(work / "log", environment=dict(os.environ)) as server:
            server.open_session()
            yield Site(server, out, state_home)
