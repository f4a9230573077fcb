"""The Storage SCP: what listens while a job runs."""
