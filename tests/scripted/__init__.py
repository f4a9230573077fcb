"""A real Query/Retrieve SCP on a socket that fails in the way of a scenario."""

from tests.scripted.archive import Fault, ScriptedArchive, Seen

__all__ = ["Fault", "ScriptedArchive", "Seen"]
