"""Scheduling: throttle (time windows, rates, concurrency), circuit breaker, transports, disk, port queue."""
