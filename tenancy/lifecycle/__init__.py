"""Provision, change and purge tenants."""
