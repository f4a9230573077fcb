"""The user's table becomes requests."""
