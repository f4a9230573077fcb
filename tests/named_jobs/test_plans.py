"""A job in a database starts with the query results of a plan, which is a file."""

from __future__ import annotations

from tests.e2e.command import outcomes, quarry
from tests.named_jobs.named_job import NamedJob


def test_the_archive_is_not_queried_again(job: NamedJob) -> None:
    planned = quarry("plan", *job.command()[1:4])
    assert planned.code in (0, 1), planned.err
    before = job.count_queries()
    assert before
    done = job.run()
    assert done.code == 1 and "using the query results of your plan" in done.out, done.out + done.err
    assert job.count_queries() == before
    assert [code for code, _ in outcomes(job.out)] == ["complete"] * 4 + ["not_found"]
    # The numbers of what is added later do not collide with those that were copied.
    assert "Nothing to do" in job.run().out
    assert quarry("retry", job.label, "--outcome", "not_found").code == 1
