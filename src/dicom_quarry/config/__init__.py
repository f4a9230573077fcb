"""The settings of the user, the policy of the site, and the files that they are read from."""
