"""What the command does, for notebooks and scripts; the command line is a thin face of this."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_quarry.api.extraction import extract as extract
    from dicom_quarry.api.extraction import notify_on_end as notify_on_end
    from dicom_quarry.api.planning import Plan as Plan
    from dicom_quarry.api.planning import build_plan as build_plan
    from dicom_quarry.api.planning import plan as plan
    from dicom_quarry.api.planning import plan_settings as plan_settings
    from dicom_quarry.api.reports import open_history as open_history
    from dicom_quarry.api.reports import report as report
    from dicom_quarry.api.reports import write_final_reports as write_final_reports
    from dicom_quarry.api.reports import write_reports as write_reports
    from dicom_quarry.api.result import Result as Result
    from dicom_quarry.api.result import load_settings as load_settings
    from dicom_quarry.api.verification import compare_with_archive as compare_with_archive
    from dicom_quarry.api.verification import refetch as refetch
    from dicom_quarry.api.verification import release as release
    from dicom_quarry.api.verification import verify as verify
    from dicom_quarry.api.verification import write_damaged_list as write_damaged_list

#: Where each stands.
_MODULES = {
    "extraction": (
        "extract",
        "notify_on_end",
    ),
    "planning": (
        "Plan",
        "build_plan",
        "plan",
        "plan_settings",
    ),
    "reports": (
        "open_history",
        "report",
        "write_final_reports",
        "write_reports",
    ),
    "result": (
        "Result",
        "load_settings",
    ),
    "verification": (
        "compare_with_archive",
        "refetch",
        "release",
        "verify",
        "write_damaged_list",
    ),
}


def __getattr__(name: str) -> object:
    # Loaded when first used: a command does not bring along what the others need.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module 'dicom_quarry.api' has no attribute '{name}'")
