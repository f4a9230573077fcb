"""What the user gets to read: report.csv, studies.csv, the manifest and the summary."""

from dicom_quarry.report.estimate import Amount, Forecast, forecast
from dicom_quarry.report.explain import explain_json, explain_lines
from dicom_quarry.report.notice import end_notice, failure_notice
from dicom_quarry.report.plan import PlanSummary, count_rows, plan_lines, render_plan
from dicom_quarry.report.plan_files import plan_json, write_plan, write_plan_json
from dicom_quarry.report.summary import Exceptions, Summary, render_summary, summarise, summary_lines
from dicom_quarry.report.tables import (
    report_table,
    study_table,
    write_changes,
    write_damaged,
    write_manifest,
    write_missing,
    write_report,
    write_studies,
)
from dicom_quarry.report.text import counted, harmless, human_size
from dicom_quarry.spoken import spoken_time

__all__ = [
    "Amount",
    "Exceptions",
    "Forecast",
    "PlanSummary",
    "Summary",
    "count_rows",
    "counted",
    "end_notice",
    "explain_json",
    "explain_lines",
    "failure_notice",
    "forecast",
    "harmless",
    "human_size",
    "plan_json",
    "plan_lines",
    "render_plan",
    "render_summary",
    "report_table",
    "spoken_time",
    "study_table",
    "summarise",
    "summary_lines",
    "write_changes",
    "write_damaged",
    "write_manifest",
    "write_missing",
    "write_plan",
    "write_plan_json",
    "write_report",
    "write_studies",
]
