"""The runner: every tenant's followers and projections, on a fixed number of threads and connections.

Wake-ups and a sweep find work. A fair ready queue hands it to workers in bounded time slices. Processes share the
tenants through leases.
"""

from tenancy.runner.monitor import FollowerMonitor
from tenancy.runner.runner import Runner

__all__ = ["FollowerMonitor", "Runner"]
