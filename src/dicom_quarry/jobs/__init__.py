"""A job as a place: folder, record, status, progress, notifications and audit log."""
