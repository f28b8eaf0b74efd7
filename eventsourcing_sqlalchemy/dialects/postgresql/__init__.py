"""PostgreSQL, and servers that speak its protocol."""
