"""The packages of an extra, which are imported only where they are used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dicom_quarry.errors import StartError


@contextmanager
def extra_imports(extra: str, feature: str) -> Iterator[None]:
    """Import packages of an extra in the context; raise StartError, with the remedy, if one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "dicom_quarry":
            raise
        raise StartError(
            f"{feature} needs the package {name}, which is not installed. Install it with  "
            f"pip install 'dicom-quarry[{extra}]'"
        ) from None
