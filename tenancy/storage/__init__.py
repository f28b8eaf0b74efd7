"""What a tenant has in a database: look, create, remove."""
