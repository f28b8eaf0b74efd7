"""The SELECT statements, equal on all databases. Statements that write are in ``dialects``.

``table`` is a name rendered by ``Dialect.render``, ``p`` the parameter placeholder.
"""

from __future__ import annotations

__all__ = [
    "select_any",
    "select_events",
    "select_max_notification_id",
    "select_max_tracking_id",
    "select_notifications",
    "select_stored",
]


def select_events(table: str, p: str, *, gt: bool, lte: bool, desc: bool, limit: bool) -> str:
    """Select originator_version, topic and state of one aggregate's events.

    Parameters: originator_id, then gt, lte and limit where True.
    """
    return (
        f"SELECT originator_version, topic, state FROM {table} WHERE originator_id = {p}"
        + (f" AND originator_version > {p}" if gt else "")
        + (f" AND originator_version <= {p}" if lte else "")
        + f" ORDER BY originator_version {'DESC' if desc else 'ASC'}"
        + (f" LIMIT {p}" if limit else "")
    )


def select_notifications(table: str, p: str, *, originator_id: str, start: str | None, stop: bool, topics: int) -> str:
    """Select id, originator_id, originator_version, topic and state in id order.

    ``start`` is a comparison, ``>=`` or ``>``, or None. Parameters: start and stop if used, each topic, the limit.
    """
    conditions = []
    if start is not None:
        conditions.append(f"id {start} {p}")
    if stop:
        conditions.append(f"id <= {p}")
    if topics:
        conditions.append(f"topic IN ({', '.join([p] * topics)})")
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT id, {originator_id}, originator_version, topic, state FROM {table}{where} ORDER BY id LIMIT {p}"


def select_max_notification_id(table: str) -> str:
    """Select the highest id, NULL if the table is empty. No parameters."""
    return f"SELECT max(id) FROM {table}"


def select_max_tracking_id(table: str, p: str) -> str:
    """Select an application's position, no row if unrecorded. Parameter: application_name."""
    return f"SELECT notification_id FROM {table} WHERE application_name = {p}"


def select_stored(table: str, p: str, id_column: str) -> str:
    """Select the id, topic and state of one event. Parameters: originator_id, originator_version."""
    return f"SELECT {id_column}, topic, state FROM {table} WHERE originator_id = {p} AND originator_version = {p}"


def select_any(table: str) -> str:
    """Select at most one row. No parameters."""
    return f"SELECT 1 FROM {table} LIMIT 1"
