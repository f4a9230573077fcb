"""DICOM network protocol (PS3.7, PS3.8), sans-I/O: bytes in, events and bytes out."""
