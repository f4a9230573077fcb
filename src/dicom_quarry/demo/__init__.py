"""A real archive with synthetic studies, for ``quarry demo`` and for tests."""

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.sample_cohorts import demo_studies, write_cohorts
from dicom_quarry.demo.synthetic_studies import Instance, Series, Study, generate

__all__ = ["DemoArchive", "Instance", "Series", "Study", "demo_studies", "generate", "write_cohorts"]
