"""The runner: followers and projections of all tenants, on a fixed number of threads and connections.

Wake-ups and a sweep find work, a fair queue hands it to workers in bounded turns, and processes share the tenants by
leases.
"""

from tenancy.runner.monitor import FollowerMonitor
from tenancy.runner.runner import Runner

__all__ = ["FollowerMonitor", "Runner"]
