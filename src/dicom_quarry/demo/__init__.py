"""A real archive with synthetic studies, for ``quarry demo`` and for tests."""

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.sample_cohorts import make_demo_studies, write_cohorts
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoSeries, DemoStudy, generate_studies

__all__ = [
    "DemoArchive",
    "DemoInstance",
    "DemoSeries",
    "DemoStudy",
    "generate_studies",
    "make_demo_studies",
    "write_cohorts",
]
