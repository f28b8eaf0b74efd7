"""What `make demo` runs: the real packages on a real database server, with every claim checked."""
