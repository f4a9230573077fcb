"""The operating system: locks, atomic files, file systems, permissions, processes, shutdown, durations."""
