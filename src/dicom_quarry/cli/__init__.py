"""The command line: one module per command, on top of :mod:`dicom_quarry.api`."""
