"""The next steps of a plan. A plan has no job to retry or to update, so it has next steps of its own."""

from __future__ import annotations

from dataclasses import replace

from dicom_quarry.model import Outcome

_AGAIN = "then run quarry plan again"

#: Next steps by reason code, for those whose step in the catalogue is about a job. A flag without a command
#: before it is one of quarry plan.
PLAN_STEPS = {
    "near_miss": f"if this is the study you meant, correct the row in the table, {_AGAIN}",
    "several_patients": "add the patient ID to the row, or fetch all of these studies with "
    f"--allow-several-patients; {_AGAIN}",
    "too_many_studies": "add a date or an accession to the row, or allow more with --max-studies NUMBER; "
    f"{_AGAIN}",
    "row_unusable": f"correct the row in the table, {_AGAIN}; to extract without such rows, use "
    "quarry extract --skip-bad-rows",
    "row_excluded": f"nothing to do if that is intended; otherwise correct the exclusion list, {_AGAIN}",
    "study_excluded": f"nothing to do if that is intended; otherwise correct the exclusion list, {_AGAIN}",
    "query_failed": "run quarry plan again: it repeats the queries that failed; if they fail again, show "
    "this status to the PACS team",
    "query_cut_short": f"add an accession or a range of study dates to the row, {_AGAIN}",
    "attribute_not_returned": f"select by another attribute, or leave this condition out, {_AGAIN}",
    "no_series_wanted": "nothing to do if that is intended; otherwise choose other series (--series, "
    f"--series-not, --min-instances), {_AGAIN}",
    "internal_error": "report it with quarry.log; with a version in which it is corrected, run quarry plan "
    "again",
}


def for_plan(outcome: Outcome) -> Outcome:
    """Return the outcome with the next step of a plan."""
    return replace(outcome, next_step=PLAN_STEPS.get(outcome.code, outcome.next_step))
