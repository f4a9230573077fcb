"""Telling people of a job: by e-mail, and by a command of theirs. Nothing that is told names a patient."""
