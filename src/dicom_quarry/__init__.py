"""Quarry: from a CSV of patients and accessions to a verified DICOM tree."""
