"""The boundary to a user's Python code: a mistake is one exception, without the errors that led to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar, cast

from dicom_quarry.errors import QuarryError

P = ParamSpec("P")
T = TypeVar("T")


def clear_errors(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its QuarryErrors have no cause and no traceback of Quarry's own code.

    So do those of an iterator that it returns. Any other exception is a defect, and keeps its traceback.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result = function(*args, **kwargs)
        except QuarryError as error:
            raise error.with_traceback(None) from None
        return cast("T", _clear(result)) if isinstance(result, Iterator) else result

    return call


def _clear(items: Iterator[T]) -> Iterator[T]:
    try:
        yield from items
    except QuarryError as error:
        raise error.with_traceback(None) from None
