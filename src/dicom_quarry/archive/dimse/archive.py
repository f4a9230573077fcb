"""An archive over DIMSE: C-ECHO, C-FIND, and C-MOVE or C-GET (PS3.4 annexes A and C)."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dicom_quarry.archive.attributes import SERIES, STUDY, series_of, studies_of
from dicom_quarry.archive.base import Answered, Answers, Ask, Found, Watch
from dicom_quarry.archive.dimse import find
from dicom_quarry.archive.dimse.association_factory import Caller, Patiences
from dicom_quarry.archive.dimse.association_pool import Lines
from dicom_quarry.archive.dimse.get import Get
from dicom_quarry.archive.dimse.identifier import UTF_8, encode, is_uid, tag
from dicom_quarry.archive.dimse.information_models import MODELS, ModelName
from dicom_quarry.archive.dimse.move import Move
from dicom_quarry.archive.dimse.retrieval import Retriever
from dicom_quarry.archive.dimse.status import in_words, of_find
from dicom_quarry.archive.instance_listing import LISTING_CAP, Lister
from dicom_quarry.errors import LocalProtocolError, Lost, QueryFailed
from dicom_quarry.model import AE, Level, Listing, SeriesInfo, Sink, Study, Task
from dicom_quarry.wire.dimse import VERIFICATION, c_echo_rq


@dataclass(frozen=True, slots=True)
class Habits:
    """How an archive wants to be asked: the lowest level that it answers at, whether it lists a whole study's
    instances at once (relational queries), and whether retrievals in Study Root need the Patient ID, too.
    """

    lowest: Level = Level.IMAGE
    relational: bool = False
    patient_id_in_move: bool = False


class DimseArchive:
    """A PACS that is queried by C-FIND, and sends by C-MOVE to ``destination``, or by C-GET (``retrieve``).

    ``model`` is the information model: Study Root, or Patient Root for archives that know no other; the
    latter wants the Patient ID with every question. ``charset`` is for keys that are not ASCII. More than
    ``answer_cap`` studies for one question are cancelled. ``before_query`` is called before every C-FIND, and
    returns when it may be sent. ``result_cap`` is the number of answers at which the archive silently stops.
    ``habits`` are how it wants to be asked.
    """

    def __init__(
        self,
        name: str,
        peer: AE,
        *,
        calling: str,
        destination: str,
        model: ModelName = "study",
        charset: str = UTF_8,
        answer_cap: int = 10_000,
        patiences: Patiences = Patiences(),  # noqa: B008 (frozen)
        tls: ssl.SSLContext | None = None,
        before_query: Callable[[], None] = lambda: None,
        result_cap: int | None = None,
        habits: Habits = Habits(),
        retrieve: Literal["move", "get"] = "move",
    ) -> None:
        self._name = name
        self._caller = Caller(peer, calling, patiences, tls)
        self._model = MODELS[model]
        self._wants_patient_id = model == "patient"
        self._charset = charset
        self._answer_cap = answer_cap
        self._before_query = before_query
        self._result_cap = result_cap
        self._habits = habits
        self._lines = Lines(self._caller.line)
        self._retriever: Retriever
        if retrieve == "get":
            self._retriever = Get(self._caller, self._model.get, self._identify)
        else:
            self._retriever = Move(self._caller, self._model.move, destination, self._identify)

    @property
    def name(self) -> str:
        """The archive's name in the configuration."""
        return self._name

    def probe(self) -> None:
        """C-ECHO (PS3.4 A.4) over an association of its own: an old one would prove nothing of today."""
        line = self._caller.line(VERIFICATION)
        try:
            request = c_echo_rq(line.next_message_id())
            line.ask(request)
            message = line.answer(request, self._caller.patiences.query)
            if message is None:
                line.requestor.abort()
                raise Lost(f"{self._caller.peer} does not answer C-ECHO")
            if message.command.status != 0x0000:
                said = in_words(of_find(message.command.status), message.command.error_comment)
                raise QueryFailed(said, status=message.command.status)
        finally:
            line.requestor.release()

    def find(self, keys: Mapping[str, str]) -> Found:
        """Studies that the archive returns for these keys (PS3.4 C.4.1), each Study UID once.

        An empty key is an attribute that the answers are to have (PS3.4 C.2.2.1.3).
        """
        if not any(keys.values()):
            raise LocalProtocolError("a query without a key would list the whole archive")
        more = tuple(keyword for keyword in keys if keyword not in STUDY)
        return studies_of(self._query(Level.STUDY, keys, (*STUDY, *more), self._answer_cap), more)

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series of a study; raises QueryFailed where the answer was cut short."""
        keys = self._study_keys(study.study_uid, study.patient_id)
        return series_of(self._query(Level.SERIES, keys, SERIES))

    def list_instances(self, task: Task) -> Listing:
        """What the archive holds of the task: SERIES level, then IMAGE level of every series."""
        keys = self._study_keys(task.study.study_uid, task.study.patient_id)
        habits = self._habits
        return Lister(self._query, task, keys, lowest=habits.lowest, relational=habits.relational).run()

    def retrieve(self, ask: Ask, sink: Sink, watch: Watch) -> Answered:
        """By UIDs only: other keys are refused, or ignored, by too many archives (PS3.4 C.4.2.1.4)."""
        for uid in (ask.study_uid, *ask.series_uids, *ask.sop_uids):
            if not is_uid(uid):
                raise LocalProtocolError(f"a retrieval by {uid!r}, which does not name one object")
        return self._retriever.retrieve(ask, sink, watch)

    def hang_up(self) -> None:
        """Release the calling thread's associations."""
        self._lines.hang_up()
        self._retriever.hang_up()

    def close(self) -> None:
        """End every association; calls in progress end as Lost."""
        self._lines.close()
        self._retriever.close()

    def _identify(self, ask: Ask) -> bytes:
        """The identifier of a retrieval."""
        keys = self._study_keys(ask.study_uid, ask.patient_id)
        keys["QueryRetrieveLevel"] = ask.level.value
        if self._habits.patient_id_in_move and ask.patient_id:
            keys["PatientID"] = ask.patient_id
        if ask.series_uids:
            keys["SeriesInstanceUID"] = "\\".join(ask.series_uids)
        if ask.sop_uids:
            keys["SOPInstanceUID"] = "\\".join(ask.sop_uids)
        return encode(keys, self._charset)

    def _study_keys(self, study_uid: str, patient_id: str) -> dict[str, str]:
        keys = {"StudyInstanceUID": study_uid}
        if self._wants_patient_id:
            keys["PatientID"] = patient_id
        return keys

    def _query(
        self, level: Level, keys: Mapping[str, str], returns: Sequence[str], cap: int = LISTING_CAP
    ) -> Answers:
        identifier = encode(
            {**dict.fromkeys(returns, ""), **keys, "QueryRetrieveLevel": level.value}, self._charset
        )
        tags = [tag(keyword) for keyword in returns]
        self._before_query()
        answers = self._lines.use(
            self._model.find,
            lambda line: find.run(line, identifier, tags, cap=cap, silence=self._caller.patiences.query),
        )
        if self._result_cap is not None and len(answers.rows) >= self._result_cap:
            answers.why = answers.why or f"the archive never gives more than {self._result_cap} answers"
        return answers
