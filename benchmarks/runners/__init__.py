"""Runners of many tenants beside each other: ``python -m benchmarks.runners``."""
