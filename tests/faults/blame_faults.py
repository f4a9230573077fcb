"""Item 36: what our own receiver refuses or aborts is the reason of the study."""

from __future__ import annotations

from tests.faults.scenario import ArchiveRequests, Scenario
from tests.scripted.sender_faults import BreaksProtocol, FromElsewhere, SentBy, ToAnotherTitle

_TWICE = ArchiveRequests(("STUDY STUDY",) * 2, None, None)
_REFUSED = ("failed", "images_refused")

SCENARIOS = tuple(
    Scenario(
        36,
        name,
        fault,
        "tries once more, and then the reason of our own receiver is that of the study",
        lambda scu=scu: [SentBy(scu)],  # type: ignore[misc]
        rows=(_REFUSED, _REFUSED),
        stored=(0, 0),
        exit_code=1,
        requests=_TWICE,
        messages=("Quarry's receiver refused the images", words),
    )
    for name, fault, scu, words in (
        (
            "unknown-address",
            "the instances come from an address that the job does not know",
            FromElsewhere,
            'senders = ["127.0.0.2"]',
        ),
        (
            "other-title",
            "the instances are sent to another AE title than ours",
            ToAnotherTitle,
            "it called the AE title QUARRY2, but this receiver is QUARRY",
        ),
        (
            "protocol",
            "the sender breaks the DICOM protocol, and our receiver aborts its association",
            BreaksProtocol,
            "it broke the DICOM protocol",
        ),
    )
)
