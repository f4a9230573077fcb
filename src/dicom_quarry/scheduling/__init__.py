"""When an archive may be queried: windows, rates, concurrency, circuit breaker, disk space, port queue."""
