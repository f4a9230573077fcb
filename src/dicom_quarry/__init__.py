"""Quarry: from a CSV of patients and accessions to a verified DICOM tree.

>>> import dicom_quarry
>>> result = dicom_quarry.extract("cohort.csv", archive="ORTHANC@10.1.2.3:4242", to="out")  # doctest: +SKIP
>>> [row.outcome.word for row in result.rows()]  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

from dicom_quarry.version import __version__

if TYPE_CHECKING:
    from dicom_quarry.api import Plan, Result, extract, plan, report, verify

__all__ = ["Plan", "Result", "__version__", "extract", "plan", "report", "verify"]


def __getattr__(name: str) -> object:
    # Loaded at the first use: importing one package does not load all the others.
    if name in __all__:
        from dicom_quarry import api

        return getattr(api, name)
    raise AttributeError(f"module 'dicom_quarry' has no attribute '{name}'")
