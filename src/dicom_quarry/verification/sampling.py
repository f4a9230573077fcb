"""Random samples of files, repeatable by their seed, and the damage that they may leave undetected."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass

from dicom_quarry.errors import InputError

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?) ?%", re.ASCII)
_HASH_RANGE = 1 << 64


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of a ``share`` (0 to 1) of the files; each file is chosen by its own UID and ``seed``."""

    share: float
    seed: str

    @classmethod
    def draw(cls, share: float) -> Sample:
        """Draw a sample with a random seed."""
        return cls(share, secrets.token_hex(4))

    def __contains__(self, sop_uid: str) -> bool:
        digest = hashlib.blake2b(f"{self.seed}\0{sop_uid}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * _HASH_RANGE


def parse_share(text: str) -> float:
    """Read a share such as ``1%``; return it from 0 to 1. Raises InputError."""
    found = _PERCENT.fullmatch(text.strip())
    percent = float(found[1]) if found else 0.0
    if not 0 < percent <= 100:
        raise InputError(f"--sample {text}: write a part of the files, such as 1% or 0.5%")
    return percent / 100


def max_undetected_damage(checked: int, total: int) -> int:
    """Return the most files that may be damaged, with 95 % confidence, although a sample showed no damage.

    It is the share p for which (1 - p) ** ``checked`` is 5 %, of ``total`` files; at most all unchecked ones.
    """
    if not checked:
        return total
    return min(total - checked, int((1 - 0.05 ** (1 / checked)) * total))
