"""Comparisons with the record of a job: of stored files, and of the archive's lists."""
