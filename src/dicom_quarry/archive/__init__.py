"""The archive: one port, and an adapter for each way of reaching it."""
