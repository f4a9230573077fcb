"""A job as a place: folder, lock, record, registry, status, progress, notifications and audit log."""
