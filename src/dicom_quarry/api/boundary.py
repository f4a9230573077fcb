"""The boundary to a user's Python code: a mistake is one exception, without the errors that led to it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator
from typing import ParamSpec, TypeVar, cast, get_type_hints

from dicom_quarry.api.options import ExtractOptions, RetryOptions
from dicom_quarry.errors import QuarryError

P = ParamSpec("P")
T = TypeVar("T")

#: A command to type, up to the end of its clause, which stays as it is; or a flag, perhaps with its value.
_FLAG = re.compile(
    r"(?P<command>\bquarry [a-z]+ [^.;,]*)"
    r"|--(?P<name>[a-z]+(?:-[a-z]+)*)(?:[ =](?P<value>'[^']*'|[A-Z%][^\s,;)]*))?"
)
_NAMES = {"from": "archive", "as": "receiver"}
#: Flags without a value, of the options and of the functions themselves; a message may name one in front of a
#: word in capitals.
_BOOLEANS = frozenset(
    {
        *("update", "archive-moved", "queue", "damaged", "changed", "delete", "quick", "probe"),
        *("xlsx", "problems", "sha256sums", "bom", "html", "identifiers"),
        *(
            name.replace("_", "-")
            for options in (ExtractOptions, RetryOptions)
            for name, kind in get_type_hints(options).items()
            if kind is bool
        ),
    }
)


def clear_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its QuarryErrors have no cause and no traceback of Quarry's own code.

    Their messages name options as Python code writes them. So do those of an iterator that it returns. Any
    other exception is a defect, and keeps its traceback.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result = function(*args, **kwargs)
        except QuarryError as error:
            raise _clear(error) from None
        return cast("T", _clear_items(result)) if isinstance(result, Generator) else result

    return call


def _clear_items(items: Generator[T, None, None]) -> Generator[T, None, None]:
    try:
        yield from items
    except QuarryError as error:
        raise _clear(error) from None


def _clear(error: QuarryError) -> QuarryError:
    error.args = tuple(name_options(one) if isinstance(one, str) else one for one in error.args)
    return error.with_traceback(None)


def name_options(message: str) -> str:
    """Return a message with arguments in place of flags: ``update=True`` for ``--update``."""
    return _FLAG.sub(_name_option, message)


def _name_option(found: re.Match[str]) -> str:
    flag = found["name"]
    if flag is None:
        return found[0]
    name = _NAMES.get(flag, flag.replace("-", "_"))
    if flag in _BOOLEANS:
        return f"{name}=True" + (f" {found['value']}" if found["value"] else "")
    if found["value"] is None:
        return name
    return f'{name}="{found["value"].strip(chr(39))}"'
