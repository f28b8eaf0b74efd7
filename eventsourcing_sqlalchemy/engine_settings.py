"""Engine and table options with their defaults; settings.py reads them from the environment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from sqlalchemy.engine import URL

__all__ = ["DEFAULTS", "EngineSettings", "OriginatorIDType"]

OriginatorIDType = Literal["uuid", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Options that one application sets on the shared engine. None means unset. Times are in seconds."""

    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float | None = None
    pool_recycle: float | None = None
    pool_pre_ping: bool | None = None
    connect_timeout: float | None = None
    lock_timeout: float | None = None
    idle_in_transaction_session_timeout: float | None = None
    commit_resolve_timeout: float | None = None
    prepare_statements: Literal["auto", "on", "off"] | None = None
    listen_url: URL | None = field(default=None, repr=False)  # its password and its query may be secrets
    sqlite_synchronous: Literal["FULL", "NORMAL"] | None = None

    def asked(self) -> Iterator[tuple[str, Any]]:
        """Yield (variable name, value) of each option that is set."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value is not None:
                yield f"SQLALCHEMY_{setting.name.upper()}", value

    def get(self, variable: str) -> Any:
        """Return the value of an option by its variable name, or None if unset."""
        return getattr(self, variable.removeprefix("SQLALCHEMY_").lower())

    def with_defaults(self) -> EngineSettings:
        """Return these settings, with the defaults of unset options."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return EngineSettings(
            **{name: getattr(DEFAULTS, name) if value is None else value for name, value in values.items()}
        )


DEFAULTS: Final = EngineSettings(
    pool_size=5,
    max_overflow=10,
    pool_timeout=30.0,
    pool_recycle=1800.0,
    # No ping by default: an idle connection that the server closed is detected without a round trip, and statements
    # that fail later are retried.
    pool_pre_ping=False,
    connect_timeout=5.0,
    lock_timeout=5.0,
    idle_in_transaction_session_timeout=30.0,
    commit_resolve_timeout=10.0,
    prepare_statements="auto",
    sqlite_synchronous="FULL",
)
