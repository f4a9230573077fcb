"""How a table is to be read: everything that flags say about it, checked before the table is opened."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from dicom_quarry.cohort.cell_values import parse_value
from dicom_quarry.cohort.columns import normalize_header, parse_keyword, parse_map
from dicom_quarry.cohort.dates import check_date_format
from dicom_quarry.cohort.value_rewrites import MAX_KEY_SETS, Rewrite, count_key_sets, parse_pad, parse_rewrite
from dicom_quarry.errors import ConfigError

#: Keys that come in several columns, and the one that they make together.
DATE_KEYS = frozenset({"StudyDate", "StudyMonth", "StudyDateFrom", "StudyDateUntil"})


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The user's word on a table.

    ``mapping`` pairs headers with keywords. ``where`` are keys for every row. ``date_format`` is strptime's,
    or ``excel``. ``rewrites`` are tried in their order.
    """

    allow_wildcards: bool = False
    whole_patients: bool = False
    mapping: tuple[tuple[str, str], ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    date_format: str = ""
    rewrites: tuple[Rewrite, ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        allow_wildcards: bool = False,
        whole_patients: bool = False,
        map: Sequence[str] = (),
        where: Sequence[str] = (),
        date_format: str = "",
        rewrite: Sequence[str] = (),
        pad: Sequence[str] = (),
    ) -> ReadOptions:
        """Options from the texts of flags of the same names. Raises ConfigError with what to write instead.

        Padding comes before rewriting: it makes the value whole that a rewrite then looks at.
        """
        form = check_date_format(date_format) if date_format else ""
        rewrites = (*parse_pads(pad), *(parse_rewrite(text) for text in rewrite))
        if count_key_sets(rewrites) > MAX_KEY_SETS:
            raise ConfigError(
                f"these rewrites give up to {count_key_sets(rewrites)} values for a row, each a query; "
                f"at most {MAX_KEY_SETS} are asked for: leave some out, or name their keyword, AccessionNumber:s/…/…/"
            )
        return cls(allow_wildcards, whole_patients, parse_map(map), parse_where(where, form), form, rewrites)

    def digest(self, table: str) -> str:
        """The digest of a table read so: its own, where the options leave its keys as they stand."""
        meaning = (self.mapping, self.where, self.date_format, tuple(one.name for one in self.rewrites))
        if not any(meaning):
            return table
        return hashlib.sha256(f"{table}{meaning!r}".encode("utf-8", "surrogatepass")).hexdigest()


#: Without any flag.
DEFAULT_READ_OPTIONS = ReadOptions()


def parse_pads(texts: Sequence[str]) -> tuple[Rewrite, ...]:
    """Read ``--pad`` flags; raises ConfigError where two are for one keyword."""
    pads = tuple(parse_pad(text) for text in texts)
    if len({one.keywords for one in pads}) < len(pads):
        raise ConfigError("--pad: give one width for each keyword")
    return pads


def parse_where(texts: Sequence[str], date_format: str = "") -> tuple[tuple[str, str], ...]:
    """Read ``Modality=CT``: keys for every row. They may have wildcards, but not match everything.

    A study has no Modality: ModalitiesInStudy is meant.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not equals:
            raise ConfigError(f"--where '{text}': write KEYWORD=VALUE, as in Modality=CT")
        keyword = "ModalitiesInStudy" if normalize_header(name) == "modality" else parse_keyword(name)
        if keyword == "SeriesInstanceUID":
            raise ConfigError(
                f"--where '{text}': a study has many series; choose them with --series Modality=CT"
            )
        value = parse_value(keyword, given, allow_wildcards=True, date_format=date_format)
        if keyword == "ModalitiesInStudy" and ("," in given or "\\" in given):
            raise ConfigError(
                f"--where '{text}': one modality here; choose several with --series Modality={given}"
            )
        if not value.text:
            raise ConfigError(f"--where '{text}': {value.problem or 'there is no value; write one'}")
        keyword = "StudyDate" if keyword == "StudyMonth" else keyword
        if keyword in found or keyword in ("StudyDateFrom", "StudyDateUntil"):
            raise ConfigError(_duplicate_key_message(text, keyword))
        found[keyword] = value.text
    return tuple(found.items())


def _duplicate_key_message(text: str, keyword: str) -> str:
    if keyword.startswith("StudyDate"):
        return f"--where '{text}': write both ends as one range, StudyDate=20180101-20180131"
    return f"--where '{text}': {keyword} is given twice; give it once"
