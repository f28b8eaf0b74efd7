"""Versions of the package's own tables, and the steps between them.

Version 0 is what the published package creates, version 1 what this package creates. The version of a table follows
from its shape, so nothing else has to be recorded, and a step that is repeated changes nothing.
"""

from eventsourcing_sqlalchemy.migrations.locking import LOCK_TIMEOUT, retry_while_locked
from eventsourcing_sqlalchemy.migrations.migrating import migrate, migrate_in
from eventsourcing_sqlalchemy.migrations.versions import HEAD, version_of

__all__ = ["HEAD", "LOCK_TIMEOUT", "migrate", "migrate_in", "retry_while_locked", "version_of"]
