"""Receiver: the Storage SCP that an archive sends instances to (PS3.4 annex B)."""
