"""Where tenants go: names of their schemas and tables, and the variables that lead there. No I/O."""
