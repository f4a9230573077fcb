"""The job: from requests to explained outcomes."""
