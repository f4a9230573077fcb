"""The user's table becomes requests: all at once (``read_cohort``) or one at a time (``CohortFile``)."""

from dicom_quarry.cohort.cohort import Cohort, CohortFile, explain, read_cohort

__all__ = ["Cohort", "CohortFile", "explain", "read_cohort"]
