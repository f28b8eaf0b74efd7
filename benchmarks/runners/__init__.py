"""Compare runners for many tenants: ``python -m benchmarks.runners``."""
