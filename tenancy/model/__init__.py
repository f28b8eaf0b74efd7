"""What a tenant, its placement and its applications are. No I/O."""
