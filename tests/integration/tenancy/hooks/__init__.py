"""Hooks for new tenants, and reactions to lifecycle events."""
