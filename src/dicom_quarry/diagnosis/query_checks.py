"""What the archive answers when it is asked for a study named for testing: models, keys, levels.

Every answer is matched again here; what does not match shows a key that the archive ignores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dicom_quarry.archive.base import Found
from dicom_quarry.archive.dimse.archive import DimseArchive
from dicom_quarry.diagnosis.context import Bench, Mark, Model, Step
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import Listing, Study, Task

#: Values that no study has: an archive that heeds the key answers with nothing.
_NOBODYS = {
    "AccessionNumber": "QUARRY-CHECK-0",
    "PatientID": "QUARRY-CHECK-NOBODY",
    "StudyDate": "18950101",
}

_ASK_FOR_KEY = "ask the PACS team why; rows that need this key cannot be told from others by the archive"


class Inquiry:
    """Questions about one study; afterwards ``study`` and ``listing`` say what it is."""

    def __init__(self, bench: Bench, accession: str) -> None:
        self.study: Study | None = None
        self.listing: Listing | None = None
        self._bench = bench
        self._accession = accession
        self._answered = False
        self._archives: dict[Model, DimseArchive] = {}

    @property
    def identifiers(self) -> set[str]:
        """What names the patient, where it is long enough not to be part of any number."""
        patient = self.study.patient_id if self.study else ""
        return {text for text in (self._accession, patient) if len(text) > 3}

    def steps(self) -> Iterator[Step]:
        """One question after the other."""
        try:
            yield from self._models()
            if self.study is not None and self._bench.learned.model is not None:
                archive = self._archive(self._bench.learned.model)
                yield from (self._key(archive, self.study, keyword) for keyword in _NOBODYS)
                yield self._levels(archive, self.study)
        finally:
            for archive in self._archives.values():
                archive.close()

    def _archive(self, model: Model) -> DimseArchive:
        if model not in self._archives:
            self._archives[model] = self._bench.archive(model)
        return self._archives[model]

    # -- models

    def _models(self) -> Iterator[Step]:
        """The model of the settings first; the first in which the study is found is the one to use."""
        learned, preferred = self._bench.learned, self._bench.profile.model
        for model in sorted(learned.models, key=lambda one: one != preferred):
            if not learned.models[model]:
                continue
            step = self._find(model)
            if step.mark is Mark.GOOD and learned.model is None:
                learned.model = model
            elif step.mark is Mark.BAD and learned.model is not None:
                step = Step(step.name, Mark.NOTE, step.said)  # one model is enough
            yield step
            if step.mark is Mark.BAD and self.study is None and self._answered:
                return  # the other model leads to the same studies
        if learned.model not in (None, preferred):
            remedy = f'model = "{learned.model}" in quarry.toml is needed (--save writes it)'
            yield Step("model", Mark.BAD, f"only {_root(learned.model)} works", remedy)

    def _find(self, model: Model) -> Step:
        name, archive = f"query, {_root(model)}", self._archive(model)
        keys = {"AccessionNumber": self._accession}
        if self.study is not None:
            keys["PatientID"] = self.study.patient_id  # which the Patient Root model wants
        try:
            found = archive.find(keys)
        except ArchiveError as error:
            return Step(name, Mark.BAD, str(error))
        self._answered = True
        matching = [study for study in found.studies if study.accession == self._accession]
        if not matching:
            return _not_found(name, found)
        self.study = self.study or min(matching, key=lambda study: study.instance_count or 0)
        return Step(name, Mark.GOOD, "finds the study by its accession")

    # -- keys

    def _key(self, archive: DimseArchive, study: Study, keyword: str) -> Step:
        """Ask with the right value, then with one that nobody has."""
        name = f"key {keyword}"
        right = self._right(study)
        partner = "PatientID" if keyword == "AccessionNumber" else "AccessionNumber"
        keys = {one: right[one] for one in (partner, keyword) if right[one]}
        if not right[keyword]:
            return Step(name, Mark.NOTE, "the study has none, so this cannot be tried")
        try:
            with_right = archive.find(keys)
            with_nobodys = archive.find({**keys, keyword: _NOBODYS[keyword]})
        except ArchiveError as error:
            return Step(name, Mark.BAD, str(error), _ASK_FOR_KEY)
        if with_nobodys.studies:
            said = f"ignored: a value that no study has is answered with {_counted(with_nobodys)}"
            return Step(name, Mark.BAD, said, _ASK_FOR_KEY)
        if all(one.study_uid != study.study_uid for one in with_right.studies):
            return Step(name, Mark.BAD, "with its own value the study is not found", _ASK_FOR_KEY)
        return Step(name, Mark.GOOD, "honoured")

    def _right(self, study: Study) -> Mapping[str, str]:
        return {
            "AccessionNumber": self._accession,
            "PatientID": study.patient_id,
            "StudyDate": study.study_date,
        }

    # -- levels

    def _levels(self, archive: DimseArchive, study: Study) -> Step:
        name = "levels SERIES, IMAGE"
        try:
            listing = archive.list_instances(Task(0, archive.name, study))
        except ArchiveError as error:
            return Step(name, Mark.BAD, str(error))
        self.listing = listing
        if not listing.by_image:
            said = "the archive cannot list instances, so nothing can prove that a study is complete"
            remedy = "ask the PACS team for queries at IMAGE level; rows will end as unverified without them"
            return Step(name, Mark.BAD, said, remedy)
        if not listing.complete:
            return Step(name, Mark.BAD, f"the list ended early: {listing.why}")
        said = f"{len(listing.series_uids)} series, {len(listing.instances)} instances listed"
        return Step(name, Mark.GOOD if listing.instances else Mark.BAD, said)


def _root(model: Model | None) -> str:
    return f"{model} root".title()


def _not_found(name: str, found: Found) -> Step:
    if found.studies:
        said = f"the archive ignores AccessionNumber: it answers with {_counted(found)}, none of which has it"
        return Step(name, Mark.BAD, said, _ASK_FOR_KEY)
    said = found.why or "the archive answers, and has no study with the accession named for testing"
    return Step(name, Mark.BAD, said, "name an accession that this archive holds")


def _counted(found: Found) -> str:
    number = len(found.studies)
    return f"{number}{'' if found.complete else ' or more'} {'study' if number == 1 else 'studies'}"
