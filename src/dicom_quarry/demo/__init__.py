"""A real archive with synthetic studies, for ``quarry demo`` and for tests."""
