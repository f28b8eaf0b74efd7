"""The PostgreSQL dialect, also for servers that speak its protocol."""
