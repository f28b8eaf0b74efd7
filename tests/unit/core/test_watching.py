"""The file watcher thread, without a file."""

from __future__ import annotations

from eventsourcing_sqlalchemy.notifications.file_watcher import FileWatcher


class Ignoring:
    """Ignores wake-ups."""

    def received(self, payload: str) -> None:
        """Do nothing."""

    def wake_all(self) -> None:
        """Do nothing."""

    def sweep(self) -> None:
        """Do nothing."""


def test_write_between_creation_and_start_of_the_thread_succeeds() -> None:
    """A subscription begins while another thread appends: the watcher is registered before it runs."""
    watch = FileWatcher(Ignoring(), lambda: 1)
    with watch.ignoring():
        written = True
    assert written
