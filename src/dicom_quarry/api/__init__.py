"""The product as functions and classes, for the command line, notebooks and scripts.

The functions of this package's modules are the product's verbs. The other names belong to packages below;
they are given here because the verbs take or return them, or because every face shows values in the same way.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dicom_quarry.api.archive_comparison import archive_diff_lines as archive_diff_lines
    from dicom_quarry.api.archive_comparison import compare_with_archive as compare_with_archive
    from dicom_quarry.api.archive_comparison import refetch as refetch
    from dicom_quarry.api.background import Launcher as Launcher
    from dicom_quarry.api.background import is_background_job as is_background_job
    from dicom_quarry.api.background import start_in_background as start_in_background
    from dicom_quarry.api.checking import ConnectionCheck as ConnectionCheck
    from dicom_quarry.api.cluster_upgrade import upgrade_cluster as upgrade_cluster
    from dicom_quarry.api.clusters import find_removable_job as find_removable_job
    from dicom_quarry.api.clusters import has_cluster as has_cluster
    from dicom_quarry.api.clusters import init_cluster as init_cluster
    from dicom_quarry.api.clusters import read_cluster_status as read_cluster_status
    from dicom_quarry.api.clusters import remove_job as remove_job
    from dicom_quarry.api.clusters import set_weight as set_weight
    from dicom_quarry.api.completion import prune as prune
    from dicom_quarry.api.completion import release as release
    from dicom_quarry.api.demonstration import RunningDemo as RunningDemo
    from dicom_quarry.api.demonstration import run_demo as run_demo
    from dicom_quarry.api.downloads import ReportFile as ReportFile
    from dicom_quarry.api.downloads import existing_reports as existing_reports
    from dicom_quarry.api.downloads import open_report as open_report
    from dicom_quarry.api.extraction import extract as extract
    from dicom_quarry.api.extraction import load_extract_settings as load_extract_settings
    from dicom_quarry.api.extraction import make_runner as make_runner
    from dicom_quarry.api.extraction import notify_on_end as notify_on_end
    from dicom_quarry.api.extraction import with_file_check as with_file_check
    from dicom_quarry.api.jobs import RETRIED_BY_DEFAULT as RETRIED_BY_DEFAULT
    from dicom_quarry.api.jobs import RunningJob as RunningJob
    from dicom_quarry.api.jobs import configured_archives as configured_archives
    from dicom_quarry.api.jobs import find_default_job as find_default_job
    from dicom_quarry.api.jobs import find_job as find_job
    from dicom_quarry.api.jobs import find_running_job as find_running_job
    from dicom_quarry.api.jobs import find_running_jobs as find_running_jobs
    from dicom_quarry.api.jobs import latest_job_folders as latest_job_folders
    from dicom_quarry.api.jobs import list_job_statuses as list_job_statuses
    from dicom_quarry.api.jobs import read_job_status as read_job_status
    from dicom_quarry.api.jobs import registered_folders as registered_folders
    from dicom_quarry.api.jobs import status_exit_code as status_exit_code
    from dicom_quarry.api.niffler import NifflerJob as NifflerJob
    from dicom_quarry.api.niffler import convert_niffler_config as convert_niffler_config
    from dicom_quarry.api.niffler import load_niffler_job as load_niffler_job
    from dicom_quarry.api.options import UNLIMITED_STUDIES as UNLIMITED_STUDIES
    from dicom_quarry.api.planning import Plan as Plan
    from dicom_quarry.api.planning import build_plan as build_plan
    from dicom_quarry.api.planning import load_plan_settings as load_plan_settings
    from dicom_quarry.api.planning import plan as plan
    from dicom_quarry.api.receiving import FolderReceiver as FolderReceiver
    from dicom_quarry.api.receiving import ReceiverTls as ReceiverTls
    from dicom_quarry.api.receiving import Recovered as Recovered
    from dicom_quarry.api.reports import open_history as open_history
    from dicom_quarry.api.reports import report as report
    from dicom_quarry.api.reports import write_final_reports as write_final_reports
    from dicom_quarry.api.result import Result as Result
    from dicom_quarry.api.result import list_changed_settings as list_changed_settings
    from dicom_quarry.api.result import load_job_settings as load_job_settings
    from dicom_quarry.api.result import override_settings as override_settings
    from dicom_quarry.api.verification import check_proof as check_proof
    from dicom_quarry.api.verification import format_files_progress as format_files_progress
    from dicom_quarry.api.verification import open_verification as open_verification
    from dicom_quarry.api.verification import record_verification as record_verification
    from dicom_quarry.api.verification import write_damaged_list as write_damaged_list
    from dicom_quarry.api.verified_files import Verification as Verification
    from dicom_quarry.api.verified_files import verify as verify
    from dicom_quarry.api.web_place import WebPlace as WebPlace
    from dicom_quarry.api.web_place import open_web_place as open_web_place
    from dicom_quarry.api.workers import make_worker as make_worker
    from dicom_quarry.completion.release import ReleaseOutcome as ReleaseOutcome
    from dicom_quarry.config.layouts import choose_filepath as choose_filepath
    from dicom_quarry.config.scaffold import ScaffoldOptions as ScaffoldOptions
    from dicom_quarry.config.scaffold import render_config as render_config
    from dicom_quarry.config.settings import DEFAULT_LOCAL as DEFAULT_LOCAL
    from dicom_quarry.config.settings import Settings as Settings
    from dicom_quarry.config.settings import load_settings as load_settings
    from dicom_quarry.config.time_window import parse_schedule as parse_schedule
    from dicom_quarry.config.toml_file import FILE_NAME as FILE_NAME
    from dicom_quarry.diagnosis.context import CheckStep as CheckStep
    from dicom_quarry.diagnosis.context import StepStatus as StepStatus
    from dicom_quarry.extraction.runner import JobResult as JobResult
    from dicom_quarry.extraction.runner import Runner as Runner
    from dicom_quarry.jobs.internal_errors import describe_internal as describe_internal
    from dicom_quarry.jobs.observer import JobObserver as JobObserver
    from dicom_quarry.jobs.observer import describe_unused_columns as describe_unused_columns
    from dicom_quarry.jobs.open_place import find_folder as find_folder
    from dicom_quarry.jobs.opened_job import OpenedJob as OpenedJob
    from dicom_quarry.jobs.opened_job import open_job as open_job
    from dicom_quarry.jobs.place import JobPlace as JobPlace
    from dicom_quarry.jobs.progress import QueryProgress as QueryProgress
    from dicom_quarry.jobs.progress import Snapshot as Snapshot
    from dicom_quarry.jobs.registry import job_key as job_key
    from dicom_quarry.jobs.status import JobStatus as JobStatus
    from dicom_quarry.ledger.cohort_rows import CohortChange as CohortChange
    from dicom_quarry.ledger.views import RowView as RowView
    from dicom_quarry.planning.planner import make_plan as make_plan
    from dicom_quarry.plurals import format_count as format_count
    from dicom_quarry.plurals import format_part as format_part
    from dicom_quarry.receiver.stats import ReceiverStats as ReceiverStats
    from dicom_quarry.reporting.cluster_text import VANISHED as VANISHED
    from dicom_quarry.reporting.cluster_text import archive_facts as archive_facts
    from dicom_quarry.reporting.cluster_text import cluster_lines as cluster_lines
    from dicom_quarry.reporting.cluster_text import describe_comparison as describe_comparison
    from dicom_quarry.reporting.cluster_text import describe_outage as describe_outage
    from dicom_quarry.reporting.cluster_text import describe_silence as describe_silence
    from dicom_quarry.reporting.cluster_text import format_moment as format_moment
    from dicom_quarry.reporting.cluster_view import ArchiveView as ArchiveView
    from dicom_quarry.reporting.cluster_view import ClusterView as ClusterView
    from dicom_quarry.reporting.cluster_view import FileCheckView as FileCheckView
    from dicom_quarry.reporting.cluster_view import JobShare as JobShare
    from dicom_quarry.reporting.cluster_view import WorkerView as WorkerView
    from dicom_quarry.reporting.file_damage import describe_damage as describe_damage
    from dicom_quarry.reporting.file_damage import describe_file_check as describe_file_check
    from dicom_quarry.reporting.formatting import format_size as format_size
    from dicom_quarry.reporting.job_dict import file_check_dict as file_check_dict
    from dicom_quarry.reporting.job_dict import job_dict as job_dict
    from dicom_quarry.reporting.job_view import JobView as JobView
    from dicom_quarry.reporting.job_view import read_job_view as read_job_view
    from dicom_quarry.reporting.live_display import LiveDisplay as LiveDisplay
    from dicom_quarry.reporting.plan_files import is_plan_file as is_plan_file
    from dicom_quarry.reporting.plan_files import plan_json as plan_json
    from dicom_quarry.reporting.plan_summary import plan_lines as plan_lines
    from dicom_quarry.reporting.plan_summary import render_plan as render_plan
    from dicom_quarry.reporting.progress_text import format_cohort as format_cohort
    from dicom_quarry.reporting.progress_text import format_cohort_change as format_cohort_change
    from dicom_quarry.reporting.progress_text import format_left as format_left
    from dicom_quarry.reporting.progress_text import format_query_progress as format_query_progress
    from dicom_quarry.reporting.progress_text import format_rate as format_rate
    from dicom_quarry.reporting.progress_text import format_study as format_study
    from dicom_quarry.reporting.progress_text import format_totals as format_totals
    from dicom_quarry.reporting.row_history import Explanation as Explanation
    from dicom_quarry.reporting.row_history import explain as explain
    from dicom_quarry.reporting.row_history import explain_json as explain_json
    from dicom_quarry.reporting.row_history import explain_lines as explain_lines
    from dicom_quarry.reporting.summary import render_summary as render_summary
    from dicom_quarry.reporting.summary import summary_lines as summary_lines
    from dicom_quarry.system.durations import format_duration as format_duration
    from dicom_quarry.system.durations import format_time_left as format_time_left
    from dicom_quarry.system.extras import extra_imports as extra_imports
    from dicom_quarry.system.log_limit import SafeHandler as SafeHandler
    from dicom_quarry.system.stop_signals import StopSignals as StopSignals
    from dicom_quarry.system.text_safety import escape_text as escape_text
    from dicom_quarry.system.text_safety import make_visible as make_visible
    from dicom_quarry.verification.manifest import MANIFEST_NAME as MANIFEST_NAME
    from dicom_quarry.verification.proof_check import ProofCheck as ProofCheck
    from dicom_quarry.verification.results import FileResult as FileResult
    from dicom_quarry.verification.results import OpenVerification as OpenVerification
    from dicom_quarry.verification.results import VerifyOptions as VerifyOptions
    from dicom_quarry.verification.results import VerifySummary as VerifySummary
    from dicom_quarry.verification.sampling import parse_share as parse_share

#: The names of this package, by the module of ``dicom_quarry`` that defines them.
EXPORTS = {
    "api.archive_comparison": (
        "archive_diff_lines",
        "compare_with_archive",
        "refetch",
    ),
    "api.background": (
        "Launcher",
        "is_background_job",
        "start_in_background",
    ),
    "api.checking": ("ConnectionCheck",),
    "api.completion": ("prune", "release"),
    "api.demonstration": (
        "RunningDemo",
        "run_demo",
    ),
    "api.downloads": ("ReportFile", "existing_reports", "open_report"),
    "api.extraction": (
        "extract",
        "load_extract_settings",
        "make_runner",
        "notify_on_end",
        "with_file_check",
    ),
    "api.jobs": (
        "RETRIED_BY_DEFAULT",
        "RunningJob",
        "configured_archives",
        "find_default_job",
        "find_job",
        "find_running_job",
        "find_running_jobs",
        "latest_job_folders",
        "list_job_statuses",
        "read_job_status",
        "registered_folders",
        "status_exit_code",
    ),
    "api.options": ("UNLIMITED_STUDIES",),
    "api.niffler": (
        "NifflerJob",
        "convert_niffler_config",
        "load_niffler_job",
    ),
    "api.planning": (
        "Plan",
        "build_plan",
        "plan",
        "load_plan_settings",
    ),
    "api.receiving": (
        "FolderReceiver",
        "ReceiverTls",
        "Recovered",
    ),
    "api.reports": (
        "open_history",
        "report",
        "write_final_reports",
    ),
    "api.cluster_upgrade": ("upgrade_cluster",),
    "api.clusters": (
        "find_removable_job",
        "has_cluster",
        "init_cluster",
        "read_cluster_status",
        "remove_job",
        "set_weight",
    ),
    "api.workers": ("make_worker",),
    "api.result": (
        "Result",
        "list_changed_settings",
        "load_job_settings",
        "override_settings",
    ),
    "api.verified_files": ("Verification", "verify"),
    "api.verification": (
        "format_files_progress",
        "check_proof",
        "record_verification",
        "write_damaged_list",
        "open_verification",
    ),
    "api.web_place": ("WebPlace", "open_web_place"),
    "system.extras": ("extra_imports",),
    "system.log_limit": ("SafeHandler",),
    "system.stop_signals": ("StopSignals",),
    "system.text_safety": ("escape_text", "make_visible"),
    "completion.release": ("ReleaseOutcome",),
    "config.layouts": ("choose_filepath",),
    "config.scaffold": (
        "ScaffoldOptions",
        "render_config",
    ),
    "config.settings": (
        "DEFAULT_LOCAL",
        "Settings",
        "load_settings",
    ),
    "config.time_window": ("parse_schedule",),
    "config.toml_file": ("FILE_NAME",),
    "diagnosis.context": (
        "CheckStep",
        "StepStatus",
    ),
    "extraction.runner": (
        "JobResult",
        "Runner",
    ),
    "jobs.place": ("JobPlace",),
    "jobs.internal_errors": ("describe_internal",),
    "jobs.observer": ("JobObserver", "describe_unused_columns"),
    "jobs.open_place": ("find_folder",),
    "jobs.opened_job": ("OpenedJob", "open_job"),
    "jobs.progress": (
        "QueryProgress",
        "Snapshot",
    ),
    "jobs.registry": ("job_key",),
    "jobs.status": ("JobStatus",),
    "ledger.cohort_rows": ("CohortChange",),
    "ledger.views": ("RowView",),
    "planning.planner": ("make_plan",),
    "receiver.stats": ("ReceiverStats",),
    "plurals": ("format_count", "format_part"),
    "reporting.cluster_text": (
        "VANISHED",
        "archive_facts",
        "cluster_lines",
        "describe_comparison",
        "describe_outage",
        "describe_silence",
        "format_moment",
    ),
    "reporting.cluster_view": ("ArchiveView", "ClusterView", "FileCheckView", "JobShare", "WorkerView"),
    "reporting.file_damage": ("describe_damage", "describe_file_check"),
    "reporting.formatting": ("format_size",),
    "reporting.live_display": ("LiveDisplay",),
    "reporting.job_dict": ("file_check_dict", "job_dict"),
    "reporting.job_view": ("JobView", "read_job_view"),
    "reporting.plan_files": (
        "is_plan_file",
        "plan_json",
    ),
    "reporting.plan_summary": (
        "plan_lines",
        "render_plan",
    ),
    "reporting.progress_text": (
        "format_cohort",
        "format_cohort_change",
        "format_left",
        "format_query_progress",
        "format_rate",
        "format_study",
        "format_totals",
    ),
    "reporting.row_history": (
        "Explanation",
        "explain",
        "explain_json",
        "explain_lines",
    ),
    "reporting.summary": (
        "render_summary",
        "summary_lines",
    ),
    "system.durations": ("format_duration", "format_time_left"),
    "verification.manifest": ("MANIFEST_NAME",),
    "verification.proof_check": ("ProofCheck",),
    "verification.results": (
        "FileResult",
        "OpenVerification",
        "VerifyOptions",
        "VerifySummary",
    ),
    "verification.sampling": ("parse_share",),
}
_MODULE_OF = {name: module for module, names in EXPORTS.items() for name in names}


def __getattr__(name: str) -> object:
    # Loaded at the first use: a command needs few of these modules, and each takes time to load.
    if name in _MODULE_OF:
        return getattr(import_module(f"dicom_quarry.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
