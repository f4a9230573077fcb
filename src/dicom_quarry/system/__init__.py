"""The operating system: files, permissions, processes, shutdown, durations."""
