"""SQLite, in files and in memory."""
