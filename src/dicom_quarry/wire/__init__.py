"""DICOM on the wire, sans-I/O: bytes in, events and bytes out (PS3.7, PS3.8)."""
