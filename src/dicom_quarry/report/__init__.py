"""What the user gets to read: report.csv, studies.csv, the manifest and the summary."""

from dicom_quarry.report.summary import Exceptions, Summary, render_summary, summarise, summary_lines
from dicom_quarry.report.tables import write_manifest, write_missing, write_report, write_studies
from dicom_quarry.report.text import counted, harmless, human_size

__all__ = [
    "Exceptions",
    "Summary",
    "counted",
    "harmless",
    "human_size",
    "render_summary",
    "summarise",
    "summary_lines",
    "write_manifest",
    "write_missing",
    "write_report",
    "write_studies",
]
