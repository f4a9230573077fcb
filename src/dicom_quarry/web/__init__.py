"""Pages about this user's jobs: HTML made by a server for one user, with live updates."""
