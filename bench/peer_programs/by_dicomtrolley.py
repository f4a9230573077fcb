"""dicomtrolley over QIDO-RS and WADO-RS, study by study (in its own environment).

by_dicomtrolley.py BASE-URL COHORT.CSV FOLDER
"""

import csv
import sys

import requests  # type: ignore[import-untyped]
from dicomtrolley.core import Query  # type: ignore[import-not-found]
from dicomtrolley.qido_rs import QidoRS  # type: ignore[import-not-found]
from dicomtrolley.trolley import Trolley  # type: ignore[import-not-found]
from dicomtrolley.wado_rs import WadoRS  # type: ignore[import-not-found]

base, table, folder = sys.argv[1:]
session = requests.Session()
trolley = Trolley(searcher=QidoRS(session, base), downloader=WadoRS(session, base))
with open(table, newline="") as file:  # noqa: PTH123 - as its documentation would
    for row in csv.DictReader(file):
        for study in trolley.find_studies(Query(AccessionNumber=row["AccessionNumber"])):
            trolley.download(study, folder)
