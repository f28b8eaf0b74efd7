"""The SQLite dialect, for files and in-memory databases."""
