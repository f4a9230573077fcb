"""Jobs in a PostgreSQL database: their list, their leases and their places. Needs the extra [cluster]."""
