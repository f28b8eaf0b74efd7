"""Wake subscriptions when events have been recorded: at once in this process, by notifications in others.

A wake-up carries no events: subscriptions read the table, and they also poll slowly, so a lost wake-up costs time and
nothing else. After a commit, one background thread notifies other processes; a notification inside the transaction
would serialize all writers of a server. One connection listens for all subscriptions of an engine, and only while there
are any.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from eventsourcing_sqlalchemy.background import Activity, keep_running
from eventsourcing_sqlalchemy.error_fields import error_fields
from eventsourcing_sqlalchemy.locks import Lock
from eventsourcing_sqlalchemy.notifications.receiver import CommitReceiver

__all__ = ["CHANNEL", "TableListener", "Waiter", "Wakeups", "payload"]

logger = logging.getLogger(__name__)

CHANNEL: Final = "eventsourcing_sqlalchemy"

# How often a subscription polls: rarely where this process receives the wake-ups of others, often where it does not.
# Seconds.
POLL_WHEN_LISTENING: Final = 1.0
POLL_WHEN_NOT_LISTENING: Final = 0.1

_NOTIFY_INTERVAL: Final = 0.01
_NOTIFIER_IDLE: Final = 1.0
_JOIN_TIMEOUT: Final = 5.0
_MAX_KEYS_PER_PAYLOAD: Final = 400  # of 17 bytes each, under PostgreSQL's 8000

_senders = itertools.count()


class Waiter:
    """A subscription's place to sleep."""

    def __init__(self, wakeups: Wakeups, key: int) -> None:
        self._wakeups = wakeups
        self._event = threading.Event()
        self.key = key

    def clear(self) -> None:
        """Forget earlier wake-ups; to be called before reading."""
        self._event.clear()

    def wake(self) -> None:
        """End the sleep, or the next one."""
        self._event.set()

    def sleep(self) -> None:
        """Return when woken, or when it is time to poll."""
        self._event.wait(self._wakeups.poll_interval)

    def close(self) -> None:
        """Leave; the last waiter ends the listening. Safe to call again."""
        self._wakeups.leave(self)

    def abandon(self) -> None:
        """Leave soon; for finalizers, which may run inside any lock and so must take none."""
        self._wakeups.abandoned.append(self)


class TableListener:
    """Receives the commits to every table of an engine, until it is closed.

    It calls ``on_commit`` with the keys of the tables that events were committed to, or with None when any table may
    have new events. The call is made in the thread that commits or listens, so it must neither wait nor raise.
    """

    def __init__(self, wakeups: Wakeups, on_commit: Callable[[Iterable[int] | None], None]) -> None:
        self._wakeups = wakeups
        self.on_commit = on_commit

    @property
    def receives_remote(self) -> bool:
        """Whether it receives commits of other processes now."""
        return self._wakeups.receives_remote

    @property
    def activities(self) -> Sequence[Activity]:
        """The background activities that receive commits."""
        return self._wakeups.activities

    def close(self) -> None:
        """Receive no more commits. Safe to call again."""
        self._wakeups.stop_listening_to_all(self)


class Wakeups:
    """The wake-ups of one engine.

    ``send`` notifies other processes, and is None where the database cannot. ``make_listener`` returns a thread that is
    not started, or None where nothing can be received. No other process can commit to a database that ``is_private``.
    """

    def __init__(
        self,
        *,
        send: Callable[[str], None] | None,
        make_listener: Callable[[Wakeups], CommitReceiver | None],
        connect_timeout: float | None,
        is_private: bool,
    ) -> None:
        self._send = send
        self._make_listener = make_listener
        self._connect_timeout = connect_timeout
        self._is_private = is_private
        self._start()
        _all.add(self)

    def _start(self) -> None:
        # Guards the fields below. Held briefly: for operations in memory, and to construct a listener, which takes a
        # few system calls.
        self._lock = Lock()
        self._waiters: dict[int, set[Waiter]] = {}
        self._table_listeners: tuple[TableListener, ...] = ()
        self._listening: CommitReceiver | None = None
        self._is_unavailable = False
        self.abandoned: deque[Waiter] = deque()
        self._pending: set[int] = set()
        self._notifier: threading.Thread | None = None
        self._has_pending = threading.Event()
        self._closing = threading.Event()
        self._sending = Activity("notifier", "Wake-ups are not sent to other processes", logger)
        self._sender = f"{os.getpid():x}-{os.urandom(4).hex()}-{next(_senders):x}"

    @property
    def poll_interval(self) -> float:
        """How long a subscription may sleep, in seconds."""
        return POLL_WHEN_LISTENING if self.receives_remote else POLL_WHEN_NOT_LISTENING

    @property
    def receives_remote(self) -> bool:
        """Whether commits of other processes are received now, or no other process can commit."""
        listening = self._listening
        return self._is_private or (listening is not None and listening.is_live)

    @property
    def activities(self) -> Sequence[Activity]:
        """The background activities."""
        listening = self._listening
        return (self._sending,) if listening is None else (self._sending, listening.activity)

    # -- sleepers --

    def join(self, key: int) -> Waiter:
        """Return a waiter for a table's events; every commit from now on wakes it."""
        self.sweep()
        waiter = Waiter(self, key)
        with self._lock:
            self._waiters.setdefault(key, set()).add(waiter)
        self._listen()
        return waiter

    def listen_to_all(self, on_commit: Callable[[Iterable[int] | None], None]) -> TableListener:
        """Call ``on_commit`` with the keys of tables that events are committed to: see :class:`TableListener`."""
        table_listener = TableListener(self, on_commit)
        with self._lock:
            self._table_listeners = (*self._table_listeners, table_listener)
        self._listen()
        return table_listener

    def _listen(self) -> None:
        started = None
        with self._lock:
            if self._listening is not None and self._listening.is_unavailable:
                self._is_unavailable = True
            if self._listening is None and not self._is_unavailable:
                started = self._listening = self._make_listener(self)
            listening = self._listening
        if started is not None:
            started.start_or_give_up()
        if listening is not None:
            listening.ready.wait(self._connect_timeout)

    def leave(self, waiter: Waiter) -> None:
        """Forget a waiter, and end the listening with the last one."""
        with self._lock:
            waiters = self._waiters.get(waiter.key)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[waiter.key]
        self._end_listening()

    def stop_listening_to_all(self, table_listener: TableListener) -> None:
        """Forget a listener to every table."""
        with self._lock:
            self._table_listeners = tuple(each for each in self._table_listeners if each is not table_listener)
        self._end_listening()

    def _end_listening(self) -> None:
        ended = None
        with self._lock:
            if not self._waiters and not self._table_listeners and self._listening is not None:
                ended, self._listening = self._listening, None
                self._is_unavailable = ended.is_unavailable
        if ended is not None:
            ended.stop()

    def reconnect(self) -> None:
        """Listen on a new connection soon: the old one may lead to a server that receives no more commits."""
        listening = self._listening
        if listening is not None:
            listening.reconnect()

    def sweep(self) -> None:
        """Forget waiters that were collected without being closed."""
        while True:
            try:
                waiter = self.abandoned.popleft()
            except IndexError:  # none, or another thread sweeps at the same time
                return
            self.leave(waiter)

    def wake(self, keys: Iterable[int]) -> None:
        """Wake the subscriptions of this process."""
        keys = tuple(keys)
        self._wake_waiters(keys)
        for table_listener in self._table_listeners:
            table_listener.on_commit(keys)

    def _wake_waiters(self, keys: Iterable[int]) -> None:
        with self._lock:
            waiters = [waiter for key in keys for waiter in self._waiters.get(key, ())]
        for waiter in waiters:
            waiter.wake()

    def wake_all(self) -> None:
        """Wake every subscription of this process, because wake-ups may have been missed."""
        with self._lock:
            keys = list(self._waiters)
        self._wake_waiters(keys)
        for table_listener in self._table_listeners:
            table_listener.on_commit(None)

    # -- other processes --

    def received(self, payload: str) -> None:
        """Wake the subscriptions that a notification is for; those of this sender are awake already."""
        sender, *keys = payload.split(",")
        if sender != self._sender:
            with suppress(ValueError):  # any role may notify, and with anything
                self.wake([(number ^ (1 << 63)) - (1 << 63) for number in (int(key, 16) for key in keys)])

    def committed(self, key: int) -> None:
        """Wake the subscriptions of this process, and soon those of others, because events were committed."""
        if self._waiters or self._table_listeners:
            self.wake((key,))
        # A pending key is sent later than now, so its notification covers these events, too.
        if self._send is None or (key in self._pending and self._notifier is not None):
            return
        with self._lock:
            self._pending.add(key)
            if self._notifier is None and not self._closing.is_set():
                self._start_notifier()
        self._has_pending.set()

    def _start_notifier(self) -> None:
        notifier = threading.Thread(
            target=keep_running,
            args=(self._sending, self._notify, self._closing),
            name="eventsourcing-notifier",
            daemon=True,
        )
        try:
            notifier.start()
        except RuntimeError as error:
            # The events are recorded; subscribers in other processes poll.
            extra = {"event": "wakeups.not_sent", **error_fields(error)}
            logger.warning("Wake-ups are not sent: %s", error, extra=extra)
        else:
            self._notifier = notifier

    def _notify(self) -> bool:
        """Notify other processes, at once and then at most every few milliseconds; return False after an idle second.

        A notification that fails is not sent again: subscribers in other processes poll.
        """
        assert self._send is not None
        self._has_pending.wait(0.0 if self._closing.is_set() else _NOTIFIER_IDLE)
        with self._lock:
            self._has_pending.clear()
            keys, self._pending = list(self._pending), set()
            if not keys:
                self._notifier = None
                return False
        for start in range(0, len(keys), _MAX_KEYS_PER_PAYLOAD):
            self._send(payload(self._sender, keys[start : start + _MAX_KEYS_PER_PAYLOAD]))
        self._closing.wait(_NOTIFY_INTERVAL)
        return True

    # -- end --

    def close(self) -> None:
        """Send what is pending, and end the threads."""
        with self._lock:
            self._closing.set()
            notifier, listening, self._listening = self._notifier, self._listening, None
        self._has_pending.set()
        if listening is not None:
            listening.stop()
            listening.join(_JOIN_TIMEOUT)
        if notifier is not None and notifier is not threading.current_thread():
            notifier.join(_JOIN_TIMEOUT)

    def ignoring(self) -> AbstractContextManager[None]:
        """Return a context in which changes of the database file are not taken for commits of other processes."""
        listening = self._listening
        return nullcontext() if listening is None else listening.ignoring()

    def after_fork(self) -> None:
        """Forget the threads and subscriptions of the parent process."""
        self._start()


def payload(sender: str, keys: Iterable[int]) -> str:
    """Return the text of a notification that events were committed to tables; ``sender`` ignores it, and an empty
    sender means that every process handles it.
    """
    return ",".join([sender, *(format(key & 0xFFFFFFFFFFFFFFFF, "016x") for key in keys)])


_all: weakref.WeakSet[Wakeups] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Send pending notifications before the process ends."""
    for wakeups in list(_all):
        wakeups.close()
