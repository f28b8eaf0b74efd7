"""The registry of all tenants, in a database of its own or in the tenants' database.

Events record each change of a tenant for the audit: ids, statuses, times and the actor's id. Anything that may name a
person or a customer is stored only in rows, which can be erased. Both are written in one transaction.
"""

from tenancy.registry.history import FLEET_ID
from tenancy.registry.migrations import FORMAT
from tenancy.registry.registry import Registry

__all__ = ["FLEET_ID", "FORMAT", "Registry"]
