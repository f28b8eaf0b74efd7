"""Count and limit what tenants record."""
