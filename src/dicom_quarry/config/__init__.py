"""Settings of the user, policy of the site, and the files that they come from."""
