"""The user's table becomes requests: all at once (``read_cohort``) or one at a time (``CohortFile``)."""

from dicom_quarry.cohort.cohort import Cohort, CohortFile, read_cohort
from dicom_quarry.cohort.exclusion import NOBODY, Exclusions, read_exclusions
from dicom_quarry.cohort.filters import ALL_SERIES, SeriesFilter
from dicom_quarry.cohort.matching import matches
from dicom_quarry.cohort.options import ReadingOptions
from dicom_quarry.cohort.problems import explain, problems_csv
from dicom_quarry.cohort.rewrites import told

__all__ = [
    "ALL_SERIES",
    "NOBODY",
    "Cohort",
    "CohortFile",
    "Exclusions",
    "ReadingOptions",
    "SeriesFilter",
    "explain",
    "matches",
    "problems_csv",
    "read_cohort",
    "read_exclusions",
    "told",
]
