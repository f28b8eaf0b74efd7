"""Start the metrics and the tracing of a process that a command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenancy.cli.errors import CommandError

if TYPE_CHECKING:
    from tenancy import Tenancy
    from tenancy.runner import Runner

__all__ = ["measure_process", "serve_metrics", "start_tracing"]


def start_tracing() -> None:
    """Trace this process with the global tracer provider."""
    try:
        from tenancy.telemetry import tracing  # noqa: PLC0415 (an extra)
    except ImportError as error:
        msg = "--tracing needs opentelemetry-api, which is not installed."
        raise CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[tracing]'") from error
    tracing.start_tracing()


def measure_process(max_tenants: int, tenants: Tenancy, running: Runner) -> None:
    """Measure this process and its runner."""
    try:
        from tenancy.telemetry.metrics import measure  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise _without_client() from error
    measure(tenants, runner=running, max_tenants=max_tenants)


def serve_metrics(port: int) -> None:
    """Serve the metrics of this process on a port of their own."""
    try:
        from prometheus_client import start_http_server  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise _without_client() from error
    try:
        start_http_server(port)
    except OSError as error:
        msg = f"--metrics-port {port} cannot be used: {error.strerror or error}."
        raise CommandError(
            msg, remedy="Choose another port, or stop the process that uses this one.", code="failed"
        ) from error


def _without_client() -> CommandError:
    msg = "--metrics-port needs prometheus-client, which is not installed."
    return CommandError(msg, remedy="Install it: pip install 'eventsourcing-sqlalchemy[metrics]'")
