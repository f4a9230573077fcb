"""Many hosts: jobs, limits and an engine in one PostgreSQL database (extra ``[cluster]``)."""
