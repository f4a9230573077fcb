"""Quarry: from a table of patients and accessions to a verified DICOM tree.

>>> import dicom_quarry
>>> result = dicom_quarry.extract("cohort.csv", archive="ORTHANC@10.1.2.3:4242", to="out")  # doctest: +SKIP
>>> [row.outcome.word for row in result.rows()]  # doctest: +SKIP

``dir(dicom_quarry)`` has every public name; docs/python.md has examples.
"""

from dicom_quarry.version import __version__

TYPE_CHECKING = False  # as in typing, which takes most of the time of this import
if TYPE_CHECKING:
    from dicom_quarry.api.checking import ConnectionCheck
    from dicom_quarry.api.extraction import extract
    from dicom_quarry.api.job import Job, check, prune, release, report, resume, retry, status, verify
    from dicom_quarry.api.job import open as open
    from dicom_quarry.api.options import ExtractOptions, PlanOptions
    from dicom_quarry.api.planning import Plan, plan
    from dicom_quarry.api.result import Result
    from dicom_quarry.api.verified_files import Verification
    from dicom_quarry.errors import (
        ArchiveError,
        ConfigError,
        InputError,
        LedgerError,
        LedgerFull,
        OperatorActionRequired,
        PortInUse,
        QuarryError,
        ReceiverEnded,
        StartError,
    )
    from dicom_quarry.jobs.observer import JobObserver
    from dicom_quarry.jobs.progress import QueryProgress, Snapshot
    from dicom_quarry.jobs.status import JobStatus
    from dicom_quarry.model import Outcome, OutcomeStatus

#: The public names, by the module that defines them.
_MODULES = {
    "api.checking": ("ConnectionCheck",),
    "api.extraction": ("extract",),
    "api.job": ("Job", "check", "open", "prune", "release", "report", "resume", "retry", "status", "verify"),
    "api.options": ("ExtractOptions", "PlanOptions"),
    "api.planning": ("Plan", "plan"),
    "api.result": ("Result",),
    "api.verified_files": ("Verification",),
    "errors": (
        "ArchiveError",
        "ConfigError",
        "InputError",
        "LedgerError",
        "LedgerFull",
        "OperatorActionRequired",
        "PortInUse",
        "QuarryError",
        "ReceiverEnded",
        "StartError",
    ),
    "jobs.observer": ("JobObserver",),
    "jobs.progress": ("QueryProgress", "Snapshot"),
    "jobs.status": ("JobStatus",),
    "model": ("Outcome", "OutcomeStatus"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

# Without open: "from dicom_quarry import *" must not replace the builtin.
__all__ = [  # noqa: RUF022 - in the order of use
    "__version__",
    "extract",
    "plan",
    "report",
    "verify",
    "status",
    "resume",
    "retry",
    "check",
    "release",
    "prune",
    "Result",
    "Plan",
    "Verification",
    "Job",
    "JobStatus",
    "JobObserver",
    "QueryProgress",
    "Snapshot",
    "ConnectionCheck",
    "Outcome",
    "OutcomeStatus",
    "ExtractOptions",
    "PlanOptions",
    "QuarryError",
    "InputError",
    "ConfigError",
    "StartError",
    "PortInUse",
    "ReceiverEnded",
    "ArchiveError",
    "OperatorActionRequired",
    "LedgerError",
    "LedgerFull",
]


def __getattr__(name: str) -> object:
    # Loaded at the first use: importing one package does not load all the others.
    if name in _MODULE_OF:
        from importlib import import_module

        module = import_module(f"dicom_quarry.{_MODULE_OF[name]}")
        value: object = getattr(module, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'dicom_quarry' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "open"])
