"""Tools for tests: a throw-away PostgreSQL server, and pytest fixtures (`tenancy.testing.plugin`)."""
