"""A tenant's tables in the database: list, create, remove. This package knows no status."""
