"""Tenants, their placements and their applications as plain objects. No I/O."""
