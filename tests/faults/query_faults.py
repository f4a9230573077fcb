"""Items 12 to 18: queries, and whose images they are."""

from __future__ import annotations

from datetime import date
from random import Random

from dicom_quarry.demo.synthetic_studies import TINY, make_patient, make_study
from tests.faults.scenario import COMPLETE, STUDIES, ArchiveRequests, Scenario, by_accession
from tests.scripted import faults, find_faults, store_faults

FAILED = ("failed", "query_failed")
CUT_SHORT = ("failed", "query_cut_short")
DIFFERS = ("mismatch", "stored_differs")

_CHANCE = Random(13)
_MANY = make_patient(_CHANCE, "MANY-13")

#: Six studies of one patient on six days, and three on one day.
SPREAD = tuple(make_study(_MANY, f"S{n}", date(2018, n + 1, 3), (TINY, 1)) for n in range(6))
ONE_DAY = tuple(make_study(_MANY, f"D{n}", date(2018, 5, 3), (TINY, 1)) for n in range(3))

#: One accession for two people, and one patient ID for two people.
SHARED = tuple(make_study(make_patient(_CHANCE, f"P-{n}"), "SAME", date(2018, 1, 1), (TINY, 2)) for n in "AB")
ISSUERS = tuple(make_study(make_patient(_CHANCE, "4711"), f"I{n}", date(2018, 1, 1), (TINY, 2)) for n in "AB")

#: An accession that begins another; a patient with a name and an ID beyond ASCII.
BEGINS = tuple(make_study(_MANY, accession, date(2018, 1, 1), (TINY, 2)) for accession in ("A1", "A12"))
UMLAUT = (make_study(make_patient(_CHANCE, "MÜ-17", "Müller^Jörg"), "U1", date(2018, 3, 4), (TINY, 2)),)


_MERGED_BY_PATIENT = make_patient(Random(15), "MERGED-15")

#: A study; one accession of two patients; three studies of another patient; one that its row names by UID.
MERGED = (
    STUDIES[0],
    *(
        make_study(make_patient(Random(number), f"TWO-{number}"), "TWO-14", date(2018, 3, number), (TINY, 2))
        for number in (1, 2)
    ),
    make_study(_MERGED_BY_PATIENT, "M1", date(2018, 1, 1), (TINY, 2), (TINY, 2)),
    make_study(_MERGED_BY_PATIENT, "M2", date(2018, 2, 1), (TINY, 1)),
    make_study(_MERGED_BY_PATIENT, "M3", date(2018, 3, 1), (TINY, 1)),
    make_study(make_patient(Random(16), "NAMED-16"), "N1", date(2018, 4, 1), (TINY, 1), (TINY, 1)),
)

#: Two studies of a patient, of which a merged answer looks like one that is whole; more of its kind, of one
#: study each; and one that shows what the archive does.
MERGED_LATE = (
    *(make_study(_MERGED_BY_PATIENT, f"L{number}", date(2018, number, 1), (TINY, 2)) for number in (4, 5)),
    *(
        make_study(make_patient(Random(number), f"LATE-{number}"), f"L{number}", date(2019, 1, 1), (TINY, 1))
        for number in range(40, 60)
    ),
    MERGED[6],
)

#: Conditions on series, each with the attribute that it needs.
_CONDITIONS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("SeriesDescription", "--series", {"series": ["SeriesDescription=*series 1"]}),
    ("SeriesDescription", "--series-not", {"series_not": ["SeriesDescription=*series 1"]}),
    ("Modality", "--series-not", {"series_not": ["Modality=SR"]}),
    ("NumberOfSeriesRelatedInstances", "--min-instances", {"min_instances": 2}),
)

_SERIES_FILTERS = (
    *(
        Scenario(
            14,
            f"not-returned-{option.strip('-')}-{keyword}",
            f"{option} on {keyword}, which the archive returns at no level",
            "empty is not known: fetches nothing, and reports that series cannot be selected by it",
            lambda keyword=keyword: [find_faults.Without(keyword)],  # type: ignore[misc]
            options=options,
            rows=(("failed", "attribute_not_returned"),) * 2,
            stored=(0, 0),
            exit_code=1,
            requests=ArchiveRequests(("", ""), (2, 2, 4), None),
            messages=(f"does not return {keyword}",),
        )
        for keyword, option, options in _CONDITIONS
        if keyword != "NumberOfSeriesRelatedInstances"
    ),
    *(
        Scenario(
            14,
            f"returned-for-images-{option.strip('-')}-{keyword}",
            f"{option} on {keyword}, which the archive does not return for series, but for images",
            "queries the images for it, and takes the series that are wanted",
            lambda keyword=keyword: [find_faults.Without(keyword, level="SERIES")],  # type: ignore[misc]
            options=options,
            stored=(2, 2) if "SeriesDescription" in keyword else (4, 4),
            requests=ArchiveRequests(None, None, None, at_most=4),
        )
        for keyword, option, options in _CONDITIONS
    ),
)

SCENARIOS = (
    *_SERIES_FILTERS,
    Scenario(
        12,
        "key-ignored",
        "AccessionNumber is ignored: every study is an answer",
        "matches every key again: takes only the requested study; a row without a match is a mismatch",
        lambda: [find_faults.Ignore("AccessionNumber")],
        cohort=by_accession(STUDIES[:1]) + "NOBODY\n",
        rows=(COMPLETE, ("mismatch", "answers_do_not_match")),
        stored=(4, 0),
        exit_code=1,
        requests=ArchiveRequests(("STUDY", ""), None),
    ),
    Scenario(
        12,
        "implicit-wildcard",
        "an accession matches whatever begins with it",
        "matches again, exactly",
        lambda: [find_faults.Prefix("AccessionNumber")],
        studies=BEGINS,
        cohort=by_accession(BEGINS[:1]),
        rows=(COMPLETE,),
        stored=(2, 0),
        requests=ArchiveRequests(("STUDY", ""), (1, 1, 1)),
    ),
    Scenario(
        12,
        "endless-answers",
        "a C-FIND that never stops to answer",
        "cancels it after 10,000 answers; the row reports that the answer was cut short, nothing is moved",
        lambda: [find_faults.EndlessAnswers()],
        cohort=by_accession(STUDIES[:1]),
        rows=(CUT_SHORT,),
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), None, None),
    ),
    *(
        Scenario(
            13,
            f"capped-{name}",
            f"a C-FIND gives 4 answers and ends with {ending}",
            "repeats the query by ranges of dates until no answer is cut short; the archive's own count of "
            "studies shows that none without a date is missing",
            lambda status=status: [find_faults.Capped(4, status, level="STUDY")],  # type: ignore[misc]
            studies=SPREAD,
            cohort="EMPI\nMANY-13\n",
            options={"whole_patients": True},
            profile=profile,
            rows=(COMPLETE,),
            stored=(1,) * 6,
            requests=ArchiveRequests(("STUDY",) * 6, (finds, 6, 6)),
        )
        for name, ending, status, profile, finds in (
            ("FE00", "FE00", 0xFE00, {}, 6),
            ("A700", "A700", 0xA700, {}, 6),
            ("silently", "success (result-cap = 4 in the profile)", 0x0000, {"result-cap": 4}, 6),
        )
    ),
    Scenario(
        13,
        "capped-day",
        "even a single day has more studies than the archive answers with",
        "reports that the answer was cut short; a part is never taken for everything",
        lambda: [find_faults.Capped(2, 0xFE00, level="STUDY")],
        studies=ONE_DAY,
        cohort="EMPI,Study Date\nMANY-13,20180503\n",
        rows=(CUT_SHORT,),
        stored=(0, 0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", "", ""), (1, 0, 0), 2),
    ),
    Scenario(
        13,
        "capped-list",
        "the list of a series' instances ends early, with FE00",
        "lists again; everything that was announced may be here, but nothing proves it",
        lambda: [find_faults.Capped(1, 0xFE00, level="IMAGE")],
        rows=(("unverified", "list_cut_short"),) * 2,
        exit_code=1,
        requests=ArchiveRequests(finds=(2, 4, 8), associations=3),
    ),
    Scenario(
        13,
        "capped-list-silently",
        "the list of a series' instances ends early, with success",
        "more arrives than is listed: lists again, and does not trust the list",
        lambda: [find_faults.Capped(1, 0x0000, level="IMAGE")],
        rows=(("unverified", "unlisted_arrived"),) * 2,
        exit_code=1,
        requests=ArchiveRequests(finds=(6, 8, 16), associations=3),
    ),
    Scenario(
        14,
        "no-counts",
        "answers lack NumberOfStudyRelatedInstances and its kin",
        "they are a hint only: the list is the proof",
        lambda: [
            find_faults.Without(
                "NumberOfStudyRelatedInstances",
                "NumberOfStudyRelatedSeries",
                "NumberOfSeriesRelatedInstances",
            )
        ],
    ),
    *(
        Scenario(
            14,
            f"merged-by-counts-{name}",
            f"an archive merges all answers into one if a query requests counts; the counts are {counts}",
            "sees that list and counts differ, and queries without counts before anything moves",
            lambda totals=totals: [find_faults.MergedByCounts(with_totals=totals)],  # type: ignore[misc]
            studies=MERGED,
            cohort="Accession,EMPI,Study Instance UID\n"
            f"{MERGED[0].accession},,\nTWO-14,,\n,{MERGED[3].patient.patient_id},\n,,{MERGED[6].study_uid}\n",
            profile={"relational": None},
            options={"whole_patients": True},
            rows=(COMPLETE, ("several_patients", "several_patients"), COMPLETE, COMPLETE),
            stored=(4, 0, 0, 4, 1, 1, 2),
            exit_code=1,
            requests=ArchiveRequests(("STUDY", "", "", *["STUDY"] * 4), None, None),
        )
        for name, counts, totals in (
            ("totals", "the totals", True),
            ("silently", "those of the first", False),
        )
    ),
    Scenario(
        14,
        "merged-by-counts-late",
        "the same, and it only shows when other studies have ended",
        "queries for all rows again, without counts",
        lambda: [find_faults.MergedByCounts(with_totals=False)],
        studies=MERGED_LATE,
        cohort="EMPI\n"
        + "".join(f"{one}\n" for one in {study.patient.patient_id: 0 for study in MERGED_LATE}),
        profile={"relational": None},
        options={"whole_patients": True, "parallel": 1},
        rows=(COMPLETE,) * 22,
        stored=(2, 2, *[1] * 20, 2),
        requests=ArchiveRequests(None, None, None, at_most=24),
    ),
    Scenario(
        14,
        "repeated-answers",
        "every answer comes twice",
        "counts each UID once",
        lambda: [find_faults.Repeated()],
    ),
    *(
        Scenario(
            14,
            f"padded-with-{name}",
            f"UIDs in answers are padded with {name}",
            "compares them without padding",
            lambda padding=padding: [find_faults.Padded(padding)],  # type: ignore[misc]
        )
        for name, padding in (("NUL", "\0"), ("spaces", " "))
    ),
    Scenario(
        14,
        "no-study-uid",
        "answers have no StudyInstanceUID",
        "the query failed: nothing can be named to the archive, and it is not 'not found'",
        lambda: [find_faults.Without("StudyInstanceUID")],
        rows=(FAILED,) * 2,
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), None, None),
    ),
    Scenario(
        14,
        "no-image-level",
        "the archive knows no IMAGE level (A900)",
        "fetches by study, and reports that nothing proves that it is all",
        lambda: [find_faults.FindStatus(0xA900, level="IMAGE")],
        rows=(("unverified", "archive_cannot_list"),) * 2,
        exit_code=1,
        requests=ArchiveRequests(finds=(2, 2, 2)),
    ),
    Scenario(
        14,
        "find-fails-at-first",
        "C-FIND is out of resources (A700), twice",
        "tries again, with pauses",
        lambda: [find_faults.FindStatus(0xA700, times=2)],
        requests=ArchiveRequests(finds=(4, 2, 4)),
    ),
    Scenario(
        14,
        "find-fails-for-ever",
        "C-FIND always fails (C000)",
        "three tries for each row, then the query failed, which is not 'not found'",
        lambda: [find_faults.FindStatus(0xC000)],
        rows=(FAILED,) * 2,
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), (6, 0, 0), 2),
    ),
    Scenario(
        15,
        "one-accession-two-patients",
        "an accession belongs to studies of two patients",
        "moves nothing, and requires a patient ID or --allow-several-patients",
        lambda: [],
        studies=SHARED,
        cohort="Accession\nSAME\n",
        rows=(("several_patients", "several_patients"),),
        stored=(0, 0),
        exit_code=1,
        requests=ArchiveRequests(("", ""), (1, 0, 0), 2),
    ),
    Scenario(
        15,
        "one-id-two-issuers",
        "two people have the same patient ID, from two issuers",
        "identifies by Study Instance UID: the accession in the row shows whose study it is",
        lambda: [],
        studies=ISSUERS,
        cohort="EMPI,Accession\n4711,IA\n",
        rows=(COMPLETE,),
        stored=(2, 0),
        requests=ArchiveRequests(("STUDY", ""), (1, 1, 1)),
    ),
    Scenario(
        15,
        "merged-patient",
        "the images carry another patient ID than the archive's answer",
        "keeps them apart, outside of the tree, until --accept-mismatch",
        lambda: [faults.OtherPatient("MERGED")],
        rows=(DIFFERS,) * 2,
        stored=(0, 0),
        apart=8,
        exit_code=1,
    ),
    Scenario(
        15,
        "merged-patient-accepted",
        "the same, where merges are normal (merged-ids = accept)",
        "takes them",
        lambda: [faults.OtherPatient("MERGED")],
        profile={"merged-ids": "accept"},
    ),
    Scenario(
        15,
        "other-accession",
        "the images carry another accession than the archive's answer",
        "keeps them apart, outside of the tree, until --accept-mismatch",
        lambda: [store_faults.OtherAccession("OTHER")],
        rows=(DIFFERS,) * 2,
        stored=(0, 0),
        apart=8,
        exit_code=1,
    ),
    Scenario(
        15,
        "several-patients-in-a-study",
        "one image of each study carries another patient ID than the others",
        "keeps that image apart, and calls the study a mismatch",
        lambda: [store_faults.SeveralPatients()],
        rows=(DIFFERS,) * 2,
        stored=(3, 3),
        apart=2,
        exit_code=1,
    ),
    Scenario(
        16,
        "matching-characters",
        "values with *, ? and back-slash, which would match other values, too",
        "refuses the rows, and queries the archive for the others only",
        lambda: [],
        cohort=by_accession(STUDIES[:1]) + "A*\nA?\nA\\B\n",
        options={"skip_bad_rows": True},
        rows=(COMPLETE, *[("invalid_row", "row_unusable")] * 3),
        stored=(4, 0),
        exit_code=1,
        requests=ArchiveRequests(("STUDY", ""), (1, 1, 2)),
    ),
    Scenario(
        17,
        "key-beyond-ascii",
        "a patient ID beyond ASCII",
        "declares the character set of its keys",
        lambda: [],
        studies=UMLAUT,
        cohort="EMPI,Accession\nMÜ-17,U1\n",
        rows=(COMPLETE,),
        stored=(2,),
        requests=ArchiveRequests(("STUDY",), (1, 1, 1)),
    ),
    Scenario(
        17,
        "undeclared-latin-1",
        "the archive answers in Latin-1 and does not declare it",
        "reads it as Latin-1, and finds the patient of the row",
        lambda: [find_faults.Undeclared()],
        studies=UMLAUT,
        cohort="EMPI,Accession\nMÜ-17,U1\n",
        rows=(COMPLETE,),
        stored=(2,),
        requests=ArchiveRequests(("STUDY",), (1, 1, 1)),
    ),
    *(
        Scenario(
            17,
            f"utf-8-{name}",
            f"the archive answers in UTF-8 and {how}",
            "compares what the bytes are in every reading, and finds the patient of the row",
            lambda charset=charset: [find_faults.Undeclared("utf-8", charset)],  # type: ignore[misc]
            studies=UMLAUT,
            cohort="EMPI,Accession\nMÜ-17,U1\n",
            rows=(COMPLETE,),
            stored=(2,),
            requests=ArchiveRequests(("STUDY",), (1, 1, 1)),
        )
        for name, how, charset in (
            ("undeclared", "does not declare it", ""),
            ("declared-as-latin-1", "declares Latin-1", "ISO_IR 100"),
        )
    ),
    Scenario(
        15,
        "other-study-uid",
        "the images bear another Study Instance UID than the archive's answer",
        "refuses them after one try; the row is a mismatch that names the attribute",
        lambda: [store_faults.OtherStudy()],
        rows=(("mismatch", "other_study_uid"),) * 2,
        stored=(0, 0),
        exit_code=1,
        messages=("Study Instance UID inside images differs",),
    ),
    Scenario(
        15,
        "other-study-uid-accepted",
        "the same, and Quarry runs with --accept-mismatch",
        "stores them in the folder mismatch, as instances of the study for which the archive lists them",
        lambda: [store_faults.OtherStudy()],
        options={"accept_mismatch": True},
        stored=(0, 0),
        apart=8,
    ),
    Scenario(
        15,
        "other-uids",
        "the images bear another Study Instance UID and other UIDs of their own than the archive's answers",
        "knows their study by the message ID of the C-MOVE, and refuses them after one try",
        lambda: [store_faults.OtherStudy(renamed=True)],
        rows=(("mismatch", "other_study_uid"),) * 2,
        stored=(0, 0),
        exit_code=1,
        messages=("Study Instance UID inside images differs",),
    ),
    Scenario(
        15,
        "other-uids-accepted",
        "the same, and Quarry runs with --accept-mismatch",
        "stores them in the folder mismatch; the listed instances are missing",
        lambda: [store_faults.OtherStudy(renamed=True)],
        options={"accept_mismatch": True},
        rows=(("partial", "instances_missing"),) * 2,
        stored=(0, 0),
        apart=8,
        exit_code=1,
        requests=ArchiveRequests(None, None, None, at_most=20),
    ),
    Scenario(
        15,
        "several-accessions",
        "the archive answers with two accessions for a study, in one value (A1\\A2)",
        "one of them is enough, in the answer and in the images",
        lambda: [find_faults.Changed(lambda record: {"AccessionNumber": f"X0\\{record['AccessionNumber']}"})],
    ),
    Scenario(
        15,
        "answered-twice",
        "the archive answers each study twice, the first time with another accession",
        "takes the identifiers of both answers for those of the study",
        lambda: [find_faults.Changed(lambda _record: {"AccessionNumber": "X0"}, twice=True)],
    ),
    Scenario(
        15,
        "case-of-an-identifier",
        "an accession of the table differs from the archive's in case alone, and the archive ignores case",
        "does not take it for the same, and names the difference",
        lambda: [find_faults.CaseIgnored()],
        studies=BEGINS[:1],
        cohort="Accession\na1\n",
        rows=(("not_found", "near_miss"),),
        stored=(0,),
        exit_code=1,
        requests=ArchiveRequests(("",), None, None),
        messages=("the archive has the accession as A1: upper and lower case differ",),
    ),
    Scenario(
        18,
        "dates-only",
        "the archive refuses any key that is a time, and any date but YYYYMMDD and a range of two",
        "sends dates as dates, also when it splits a query",
        lambda: [find_faults.DatesOnly(), find_faults.Capped(4, 0xFE00, level="STUDY")],
        studies=SPREAD,
        cohort="EMPI,Study Date\nMANY-13,20180103\n,\nMANY-13,\n",
        options={"whole_patients": True},
        rows=(COMPLETE, COMPLETE),
        stored=(1,) * 6,
        requests=ArchiveRequests(("STUDY",) * 6, None),
    ),
)
