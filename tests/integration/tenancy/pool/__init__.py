"""The pool of tenants for tests."""
