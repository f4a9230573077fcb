"""What is known of a job: requests, tasks, instances, attempts."""
