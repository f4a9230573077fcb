"""The end of a comparison of files by workers."""

from __future__ import annotations

from dicom_quarry.api.verification import record_verification, write_damaged_list
from dicom_quarry.jobs.cluster.file_check import FileCheck
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.verification.by_workers import WorkersVerification
from dicom_quarry.verification.results import VerifyOptions


def report_comparison(place: ClusterPlace, check: FileCheck) -> None:
    """Write and record what workers have found, also where no command shows it."""
    state = check.read()
    if state is None or state.ended is None:
        return  # the job was removed, or a command has started over
    parameters = state.parameters
    options = VerifyOptions(parameters["quick"], parameters["sample_share"], parameters.get("seed"))
    with WorkersVerification(place, check, options, ended=state) as verification:
        verified = verification.run(lambda _: None, lambda _: None)
        if verified is not None:
            record_verification(verification, verified, is_quick=options.quick)
            write_damaged_list(verification, verified, is_full=options.is_full)
