"""A TCP relay in front of PostgreSQL that breaks a connection at a chosen point of a conversation."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Literal, Self

from sqlalchemy import make_url

Point = Literal["before", "during", "silent", "after"]

_CHUNK = 2**16
_HEADER = struct.Struct("!ci")


@dataclass(eq=False)
class _Conversation:
    client: socket.socket
    server: socket.socket
    is_open: bool = True
    is_marked: bool = False
    answer: bytearray = field(default_factory=bytearray)


class Relay:
    """Relays to the server of a URL; use `url(driver)` instead of it.

    `break_at` arms it once. The first client that sends `marker`, in upper or lower case, loses its connection:
    `before` the server receives it; `during`, once the server has received it; `after` the server has committed and
    answered, without the answer; or `silent`: like `during`, but the server does not notice that its client is gone.
    `broken` counts the connections broken this way.
    """

    def __init__(self, url: str) -> None:
        self._target = make_url(url)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._selector = selectors.DefaultSelector()
        self._alarm, self._alarm_end = socket.socketpair()
        self._thread = threading.Thread(target=self._relay, name="relay")
        self._lock = threading.Lock()
        self._marker = b""
        self._point: Point = "before"
        self._times = 0
        self._abandoned: list[socket.socket] = []
        self.broken = 0

    def url(self, driver: str = "psycopg2") -> str:
        """Return the SQLAlchemy URL of the database through the relay, never encrypted."""
        # pg8000 is the only driver that does not request encryption by default.
        query = {} if driver == "pg8000" else {"sslmode": "disable", "gssencmode": "disable"}
        url = self._target.set(
            drivername=f"postgresql+{driver}", host="127.0.0.1", port=self._listening.getsockname()[1], query=query
        )
        return url.render_as_string(hide_password=False)

    def break_at(self, point: Point, marker: str, *, times: int = 1) -> None:
        """Break the connection of the next client that sends `marker`, `times` times in total."""
        with self._lock:
            self._point, self._marker, self._times = point, marker.lower().encode(), times

    def lead_to(self, url: str) -> None:
        """Relay new connections to the server of another URL, like a virtual IP address that moves."""
        self._target = make_url(url)

    def __enter__(self) -> Self:
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._alarm_end, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._alarm.close()
        self._thread.join()
        open_ends = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        for end in (*open_ends, *self._abandoned):
            assert isinstance(end, socket.socket)
            end.close()

    def _relay(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._alarm_end:
                    return
                if key.fileobj is self._listening:
                    self._accept()
                elif key.data.is_open:  # not closed in this round
                    self._pass_on(key.data, key.fileobj)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        try:
            server = socket.create_connection((self._target.host or "127.0.0.1", self._target.port or 5432))
        except OSError:
            client.close()
            return
        conversation = _Conversation(client, server)
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ, conversation)

    def _pass_on(self, conversation: _Conversation, end: object) -> None:
        is_client = end is conversation.client
        source, target = (
            (conversation.client, conversation.server) if is_client else (conversation.server, conversation.client)
        )
        try:
            data = source.recv(_CHUNK)
        except OSError:
            data = b""
        if not data:
            self._close(conversation)
        elif is_client and self._is_to_break(data):
            self._break(conversation, data)
        elif not is_client and conversation.is_marked:
            self._hold_back(conversation, data)
        else:
            with contextlib.suppress(OSError):
                target.sendall(data)

    def _is_to_break(self, data: bytes) -> bool:
        with self._lock:
            if not self._times or self._marker not in data.lower():
                return False
            self._times -= 1
            return True

    def _break(self, conversation: _Conversation, data: bytes) -> None:
        if self._point == "before":
            self.broken += 1
            self._close(conversation)
            return
        conversation.server.sendall(data)
        if self._point == "after":
            conversation.is_marked = True
            return
        self.broken += 1
        if self._point == "silent":
            self._abandoned.append(conversation.server.dup())
        self._close(conversation)

    def _hold_back(self, conversation: _Conversation, data: bytes) -> None:
        """Hold back the answer that confirms the commit, and pass on everything before it."""
        answer = conversation.answer
        answer += data
        position, is_complete = 0, False
        while len(answer) >= position + _HEADER.size:
            kind, length = _HEADER.unpack_from(answer, position)
            end = position + 1 + length
            if len(answer) < end:
                return
            is_complete = is_complete or kind == b"C"
            if kind == b"Z":  # ready for the next query: idle (I), or in a transaction
                if is_complete and answer[end - 1 : end] == b"I":
                    self.broken += 1
                    self._close(conversation)
                    return
                with contextlib.suppress(OSError):
                    conversation.client.sendall(bytes(answer[:end]))
                del answer[:end]
                position, is_complete = 0, False
            else:
                position = end

    def _close(self, conversation: _Conversation) -> None:
        conversation.is_open = False
        for end in (conversation.client, conversation.server):
            self._selector.unregister(end)
            end.close()
