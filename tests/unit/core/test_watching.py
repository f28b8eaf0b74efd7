"""The thread that looks at a file, without a file."""

from __future__ import annotations

from eventsourcing_sqlalchemy.notifications.file_watcher import FileWatcher


class Nobody:
    """Is told, and does nothing."""

    def received(self, payload: str) -> None:
        """Do nothing."""

    def wake_all(self) -> None:
        """Do nothing."""

    def sweep(self) -> None:
        """Do nothing."""


def test_write_between_the_making_of_the_thread_and_its_start_is_not_disturbed() -> None:
    """A subscription begins while another thread appends: the thread is known before it runs."""
    watch = FileWatcher(Nobody(), lambda: 1)
    with watch.ignoring():
        written = True
    assert written
