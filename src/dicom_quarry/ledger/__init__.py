"""The record of a job in SQLite: its requests, tasks, instances and attempts."""
