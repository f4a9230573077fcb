"""``python -m dicom_quarry`` is the ``quarry`` command."""

from dicom_quarry.cli.main import main

main()
