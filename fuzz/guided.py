"""One harness under atheris: ``python -m fuzz.guided NAME [libFuzzer's options and folders]``."""

from __future__ import annotations

import sys

import atheris

# Coverage is counted in what is imported here: our own code and the codecs that it leans on, no more.
with atheris.instrument_imports(include=["dicom_quarry", "fuzz", "pydicom.charset"]):
    from fuzz.harnesses import HARNESSES


def main() -> None:
    """Run until a finding, or until libFuzzer's limits."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, HARNESSES[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
