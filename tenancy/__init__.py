"""Many tenants, each with its own isolated tables, above the persistence module `eventsourcing_sqlalchemy`."""
