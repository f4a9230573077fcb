"""Small damage to inputs that are known, for where no coverage guides."""

from __future__ import annotations

import random

_TELLING = (
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f\xff",
    b"\\",
    b"\x1b",
    b"\x04\0",
    b"\xfe\xff\0\xe0",
)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """A copy with one to four changes."""
    out = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(out) + 1)
        match dice.randrange(5):
            case 0:
                out[at : at + 1] = bytes((dice.randrange(256),))
            case 1:
                telling = dice.choice(_TELLING)
                out[at : at + len(telling)] = telling
            case 2:
                del out[at : at + dice.choice((1, 2, 4, 30))]
            case 3:
                out[at:at] = dice.randbytes(dice.choice((1, 2, 4)))
            case _:
                out[at:at] = out[at : at + dice.choice((2, 8, 60))]
    return bytes(out)
