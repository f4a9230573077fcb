"""``quarry check``: what is wrong between this computer and an archive, step by step, and what to ask for."""
