"""The user's table: reading it, and making a request of every row."""
