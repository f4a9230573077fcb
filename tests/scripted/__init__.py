"""A real Query/Retrieve SCP on a socket that misbehaves as a scenario tells it."""

from tests.scripted.archive import Fault, ScriptedArchive, Seen

__all__ = ["Fault", "ScriptedArchive", "Seen"]
