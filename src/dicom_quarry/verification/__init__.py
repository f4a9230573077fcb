"""Stored files and the archive compared with the record."""
