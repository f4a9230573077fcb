"""Words for values of the wrong type in settings and options, in place of those of pydantic."""

from __future__ import annotations

_WORDS = {
    "int": "write a whole number, such as 4",
    "float": "write a number, such as 1.5",
    "bool": "write true or false",
    "string": "write a text",
    "tuple": "write a text, or a list of texts",
    "list": "write a list",
    "path": "write the path of a file or folder",
    "dict": "write a table of settings",
    "model": "write a table of settings",
}


def describe_type(error_type: str) -> str:
    """Return what to write in place of a value of the wrong type; empty for another kind of error.

    ``error_type`` is that of pydantic, such as ``int_parsing`` or ``bool_type``.
    """
    kind, _, problem = error_type.partition("_")
    if problem in ("type", "parsing", "from_float"):
        return _WORDS.get(kind, "")
    return ""
