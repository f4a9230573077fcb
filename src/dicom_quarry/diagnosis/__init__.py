"""``quarry check``: test the connection between this computer and an archive, and explain what is wrong."""
