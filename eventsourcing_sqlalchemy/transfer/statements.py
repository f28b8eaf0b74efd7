"""The SELECT statements that read whole tables, equal on all databases.

``table`` is a name rendered by ``Dialect.render``, ``p`` the parameter placeholder.
"""

from __future__ import annotations

__all__ = ["count_rows", "select_positions", "select_range", "select_sizes", "select_snapshots"]


def count_rows(table: str) -> str:
    """Count a table's rows. No parameters."""
    return f"SELECT count(*) FROM {table}"


def select_sizes(table: str, p: str) -> str:
    """Select id and size of the state in bytes, in id order. Parameters: id (exclusive), limit."""
    return f"SELECT id, length(state) FROM {table} WHERE id > {p} ORDER BY id LIMIT {p}"


def select_range(table: str, p: str, originator_id: str) -> str:
    """Select id, originator_id, originator_version, topic and state in id order.

    Parameters: id (exclusive), last id.
    """
    return (
        f"SELECT id, {originator_id}, originator_version, topic, state FROM {table} "
        f"WHERE id > {p} AND id <= {p} ORDER BY id"
    )


def select_snapshots(table: str, p: str, columns: str, *, after: str, events: str) -> str:
    """Select columns of snapshots in key order.

    ``after`` is the expression of the parameter for an originator id, "" to start with the first row. ``events`` is a
    table: only snapshots of an event in it up to an id; "" for all. Parameters: originator_id and originator_version
    (exclusive) unless ``after`` is "", the id unless ``events`` is "", limit.
    """
    conditions = [f"(originator_id, originator_version) > ({after}, {p})"] if after else []
    if events:
        conditions.append(
            f"EXISTS (SELECT 1 FROM {events} AS e WHERE e.originator_id = s.originator_id "
            f"AND e.originator_version = s.originator_version AND e.id <= {p})"
        )
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT {columns} FROM {table} AS s{where} ORDER BY originator_id, originator_version LIMIT {p}"


def select_positions(table: str) -> str:
    """Select application_name and notification_id. No parameters."""
    return f"SELECT application_name, notification_id FROM {table}"
