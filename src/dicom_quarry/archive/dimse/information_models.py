"""The information models of Query/Retrieve and their SOP classes (PS3.4 C.6.1.3, C.6.2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dicom_quarry.wire.dimse import VERIFICATION

ModelName = Literal["study", "patient"]


@dataclass(frozen=True, slots=True)
class InformationModel:
    """The SOP classes of one information model."""

    find: str
    move: str
    get: str


MODELS: dict[ModelName, InformationModel] = {
    "study": InformationModel(*(f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))),
    "patient": InformationModel(*(f"1.2.840.10008.5.1.4.1.2.1.{number}" for number in (1, 2, 3))),
}


def describe_service(sop_class: str) -> str:
    """What a SOP class is for, in words."""
    for name, model in MODELS.items():
        services = {model.find: "C-FIND", model.move: "C-MOVE", model.get: "C-GET"}
        if sop_class in services:
            return f"{services[sop_class]} in the {name.title()} Root model"
    return "C-ECHO" if sop_class == VERIFICATION else sop_class
