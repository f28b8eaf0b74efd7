"""The registry: which tenants there are, in a database of its own or beside theirs.

What happened to a tenant is recorded as events (ids, statuses, times and the actor's id: the audit). Whatever may name
a person or a customer stands only in rows beside them, which are written in the same transaction, so that it can be
erased.
"""

from tenancy.registry.database import FORMAT
from tenancy.registry.history import FLEET_ID
from tenancy.registry.registry import Registry

__all__ = ["FLEET_ID", "FORMAT", "Registry"]
