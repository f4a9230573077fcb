"""Checks with queries for one study: information models, keys and levels; and the limit on query results.

Every answer is matched again here. An answer that does not match reveals a key that the archive ignores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.diagnosis.attribute_check import check_attributes
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, ModelName, StepStatus
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import Listing, Study, Task
from dicom_quarry.plurals import format_count

#: Values that no study has: an archive that honours the key returns no study.
_UNUSED_VALUES = {
    "AccessionNumber": "QUARRY-CHECK-0",
    "PatientID": "QUARRY-CHECK-0",
    "StudyDate": "18950101",
}

_PATIENT_REMEDY = "the Patient Root model needs the patient ID, too: add --patient-id"
_KEY_REMEDY = "ask the PACS team why. Without this key the archive cannot find the right studies of such rows"


class StudyQueryCheck:
    """Queries for one study; afterwards ``study`` and ``listing`` describe it."""

    def __init__(self, context: CheckContext, accession: str, patient_id: str = "") -> None:
        self.study: Study | None = None
        self.listing: Listing | None = None
        self._context = context
        self._accession = accession
        self._patient_id = patient_id
        self._has_answered = False
        self._archives: dict[ModelName, DimseArchive] = {}

    @property
    def identifiers(self) -> set[str]:
        """Values that identify the patient, if they are long enough not to be part of any number."""
        patient = self.study.patient_id if self.study else ""
        return {text for text in (self._accession, self._patient_id, patient) if len(text) > 3}

    def run(self) -> Iterator[CheckStep]:
        """Run one check after the other."""
        try:
            yield from self._check_models()
            if self.study is not None and self._context.findings.model is not None:
                archive = self._archive_for(self._context.findings.model)
                yield from (self._check_key(archive, self.study, keyword) for keyword in _UNUSED_VALUES)
                yield self._check_levels(archive, self.study)
                if self.listing is not None:
                    yield check_attributes(archive, self.study, self.listing)
        finally:
            for archive in self._archives.values():
                archive.close()

    def _archive_for(self, model: ModelName) -> DimseArchive:
        if model not in self._archives:
            self._archives[model] = self._context.open_archive(model)
        return self._archives[model]

    # -- models

    def _check_models(self) -> Iterator[CheckStep]:
        """Query in each model, that of the settings first, and use the first that finds the study."""
        findings, preferred = self._context.findings, self._context.profile.model
        for model in sorted(findings.usable_models, key=lambda one: one != preferred):
            if not findings.usable_models[model]:
                continue
            step = self._check_model(model)
            if step.status is StepStatus.GOOD and findings.model is None:
                findings.model = model
            elif step.status is StepStatus.BAD and findings.model is not None:
                step = CheckStep(step.name, StepStatus.NOTE, step.message)  # one model is enough
            yield step
            if step.status is StepStatus.BAD and self.study is None and self._has_answered:
                return  # the other model has the same studies
        if findings.model not in (None, preferred):
            remedy = f'model = "{findings.model}" in quarry.toml is needed (--save writes it)'
            yield CheckStep("model", StepStatus.BAD, f"only {_model_title(findings.model)} works", remedy)

    def _check_model(self, model: ModelName) -> CheckStep:
        name, archive = f"query, {_model_title(model)}", self._archive_for(model)
        keys = {"AccessionNumber": self._accession}
        patient_id = self._patient_id or (self.study.patient_id if self.study else "")
        if patient_id:
            keys["PatientID"] = patient_id  # required by the Patient Root model (PS3.4 C.6.1)
        try:
            found = archive.find(keys)
        except ArchiveError as error:
            lacks_patient = model == "patient" and not patient_id
            return CheckStep(name, StepStatus.BAD, str(error), _PATIENT_REMEDY if lacks_patient else "")
        self._has_answered = True
        matching = [study for study in found.studies if study.accession == self._accession]
        if not matching:
            return _not_found_step(name, found)
        self.study = self.study or min(matching, key=lambda study: study.instance_count or 0)
        return CheckStep(name, StepStatus.GOOD, "study found by its accession")

    # -- keys

    def _check_key(self, archive: DimseArchive, study: Study, keyword: str) -> CheckStep:
        """Query with the study's own value, then with one that no study has."""
        name = f"key {keyword}"
        actual = self._actual_values(study)
        # The Patient ID is required by the Patient Root model (PS3.4 C.6.1).
        keys = {one: actual[one] for one in ("PatientID", "AccessionNumber", keyword) if actual[one]}
        if not actual[keyword]:
            return CheckStep(name, StepStatus.NOTE, "not tested: the study has no such value")
        try:
            with_actual = archive.find(keys)
            with_unused = archive.find({**keys, keyword: _UNUSED_VALUES[keyword]})
        except ArchiveError as error:
            return CheckStep(name, StepStatus.BAD, str(error), _KEY_REMEDY)
        if with_unused.studies:
            message = f"ignored: a value that no study has returns {_count_studies(with_unused)}"
            return CheckStep(name, StepStatus.BAD, message, _KEY_REMEDY)
        if all(one.study_uid != study.study_uid for one in with_actual.studies):
            return CheckStep(name, StepStatus.BAD, "the study is not found by its own value", _KEY_REMEDY)
        return CheckStep(name, StepStatus.GOOD, "honoured")

    def _actual_values(self, study: Study) -> Mapping[str, str]:
        return {
            "AccessionNumber": self._accession,
            "PatientID": study.patient_id,
            "StudyDate": study.study_date,
        }

    # -- levels

    def _check_levels(self, archive: DimseArchive, study: Study) -> CheckStep:
        name = "levels SERIES, IMAGE"
        try:
            listing = archive.list_instances(Task(0, archive.name, study))
        except ArchiveError as error:
            return CheckStep(name, StepStatus.BAD, str(error))
        self.listing = listing
        if not listing.lists_instances:
            message = "the archive cannot list instances, so no study can be proved complete"
            remedy = "ask the PACS team for queries at IMAGE level. Without them rows end as unverified"
            return CheckStep(name, StepStatus.BAD, message, remedy)
        if not listing.complete:
            return CheckStep(name, StepStatus.BAD, f"the list ended early: {listing.incomplete_reason}")
        message = (
            f"{len(listing.series_uids)} series, {format_count(len(listing.instances), 'instance')} listed"
        )
        return CheckStep(name, StepStatus.GOOD if listing.instances else StepStatus.BAD, message)


def _model_title(model: ModelName | None) -> str:
    return f"{model} root".title()


def _not_found_step(name: str, found: StudyQueryResult) -> CheckStep:
    if found.studies:
        message = (
            f"the archive ignores AccessionNumber: it returns {_count_studies(found)}, "
            "none of them with this accession"
        )
        return CheckStep(name, StepStatus.BAD, message, _KEY_REMEDY)
    message = (
        found.incomplete_reason
        or "the archive answers, and has no study with the accession given with --accession"
    )
    return CheckStep(name, StepStatus.BAD, message, "name an accession that this archive holds")


def _count_studies(found: StudyQueryResult) -> str:
    number = len(found.studies)
    return f"{number}{'' if found.complete else ' or more'} {'study' if number == 1 else 'studies'}"


#: Days before today in which studies are counted.
_SPAN_DAYS = (1, 7, 30, 180, 730, 3650)

#: A limit above this does not matter: no query of a cohort has so many results.
MAX_RESULTS = 5_000

#: Queries the studies from the first date to the second, both included.
QueryDateRange = Callable[[date, date], StudyQueryResult]


def probe_result_cap(context: CheckContext, newest: date) -> CheckStep:
    """Look for a limit on the number of results; a limit that is found is kept in the findings."""
    model = context.findings.model or context.profile.model
    if model == "patient":
        message = "not tested: the Patient Root model needs a patient ID in every query"
        return CheckStep("result cap", StepStatus.NOTE, message)
    archive = context.open_archive(model, answer_cap=MAX_RESULTS)
    try:
        cap, largest = find_result_cap(lambda first, last: archive.find(_date_range_key(first, last)), newest)
    except ArchiveError as error:
        return CheckStep("result cap", StepStatus.NOTE, f"could not be determined: {error}")
    finally:
        archive.close()
    if cap is None:
        return CheckStep("result cap", StepStatus.GOOD, f"none found, with up to {largest:,} results")
    context.findings.result_cap = cap
    message = f"the archive never returns more than {cap:,} results"
    return CheckStep(
        "result cap", StepStatus.NOTE, message, f"result-cap = {cap} in quarry.toml (--save writes it)"
    )


def _date_range_key(first: date, last: date) -> dict[str, str]:
    return {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}


def find_result_cap(query: QueryDateRange, newest: date) -> tuple[int | None, int]:
    """Return the limit, None if there is none, and the largest number of results that came.

    An archive may report that it stopped early. If it does not, the halves of a period together return more
    than the whole. A result with answers that cannot be used shows no limit.
    """
    largest = 0
    for days in _SPAN_DAYS:
        start = newest - timedelta(days=days - 1)
        whole = query(start, newest)
        largest = max(largest, len(whole.studies))
        if not whole.complete and whole.splittable:
            return (None if largest >= MAX_RESULTS else largest or None), largest
    # The longest span has the most answers, and if there is a cap, as many as that.
    return (largest if largest and _halves_exceed_whole(query, start, newest, largest) else None), largest


def _halves_exceed_whole(query: QueryDateRange, start: date, end: date, count: int) -> bool:
    first, last = start, end
    while first < last:
        middle = first + (last - first) // 2
        older = len(query(first, middle).studies)
        newer = len(query(middle + timedelta(days=1), last).studies)
        if older + newer > count:
            # Once more: a study that was stored between two queries is no limit.
            return len(query(start, end).studies) == count
        if older and newer:
            return False
        # All results are in one half, which may have been cut short like the whole.
        first, last = (first, middle) if older else (middle + timedelta(days=1), last)
    return False
