"""The paths of a job's files, computed from its pattern and the archive's instance list."""

from __future__ import annotations

from pathlib import PurePosixPath

from dicom_quarry.config.settings import parse_recorded_settings
from dicom_quarry.jobs.naming import recorded_names
from dicom_quarry.ledger.reader import LedgerReader, PathFunction
from dicom_quarry.model import InstanceRef, Study
from dicom_quarry.store.path_template import PathTemplate


def make_path_function(template: PathTemplate) -> PathFunction:
    """Return a function that computes the path of an instance from the archive's answers.

    A template may need attributes that the archive does not list. The computed path then differs from the
    stored one, which the ledger records.
    """

    def path_of(study: Study, ref: InstanceRef) -> PurePosixPath:
        header = {
            0x00080016: ref.sop_class,
            0x00080018: ref.sop_uid,
            0x00080020: study.study_date,
            0x00080050: study.accession,
            0x00100020: study.patient_id,
            0x0020000D: ref.study_uid,
            0x0020000E: ref.series_uid,
        }
        return template.render(header)

    return path_of


def load_path_function(reader: LedgerReader) -> PathFunction:
    """Return the path function for the pattern that a job was started with."""
    metadata = reader.metadata()
    filepath, names = parse_recorded_settings(metadata).filepath, recorded_names(metadata)
    return make_path_function(PathTemplate.parse(filepath, columns=reader.columns(), names=names))
