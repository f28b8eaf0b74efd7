"""Count what tenants record."""
