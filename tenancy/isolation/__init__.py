"""Where tenants' tables go: names, placements and environment variables. No I/O."""
