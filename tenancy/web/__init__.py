"""Tenants of web requests."""
