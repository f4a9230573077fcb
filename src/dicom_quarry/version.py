"""The version of Quarry, and the names by which it announces itself on the wire (PS3.7 D.3.3.2)."""

__version__ = "0.1.0"

# A UID under 2.25 needs no registration (PS3.5 B.2): it is derived from a UUID made once for this project.
IMPLEMENTATION_CLASS_UID = "2.25.138426573320458711634917905511823470691"
IMPLEMENTATION_VERSION_NAME = "QUARRY_" + __version__.replace(".", "")
