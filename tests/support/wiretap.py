"""A TCP relay in front of a server that counts round trips and bytes."""

import contextlib
import selectors
import socket
import threading
from typing import Self

from sqlalchemy import make_url

_CHUNK = 2**16


class Wiretap:
    """Relays to the server of a URL, and counts round trips and bytes; use `url` instead of it.

    A round trip begins when a client sends after the server did, so a request of many packets counts once.
    """

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (target.host or "localhost", target.port or 5432)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = target.set(host="127.0.0.1", port=self._listening.getsockname()[1]).render_as_string(
            hide_password=False
        )
        self.round_trips = 0
        self.bytes_to_client = 0
        self._waiting_for_client: set[socket.socket] = set()
        self._peers: dict[socket.socket, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._alarm, self._alarm_end = socket.socketpair()
        self._thread = threading.Thread(target=self._relay, name="wiretap")

    def __enter__(self) -> Self:
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._selector.register(self._alarm_end, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._alarm.close()
        self._thread.join()
        self._selector.close()
        for end in (self._listening, self._alarm_end, *self._peers):
            end.close()

    def reset(self) -> None:
        """Reset the counts."""
        self.round_trips = self.bytes_to_client = 0

    def _relay(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._alarm_end:
                    return
                if key.fileobj is self._listening:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket) and key.fileobj in self._peers:
                    self._pass_on(key.fileobj, is_server=bool(key.data))

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.create_connection(self._target)
        for end, peer, is_server in ((client, server, False), (server, client, True)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._peers[end] = peer
            self._selector.register(end, selectors.EVENT_READ, is_server)
        self._waiting_for_client.add(client)

    def _pass_on(self, end: socket.socket, *, is_server: bool) -> None:
        peer = self._peers[end]
        try:
            data = end.recv(_CHUNK)
        except OSError:
            data = b""
        # Count before passing on, so that a client that has its answer finds it counted.
        if is_server:
            self.bytes_to_client += len(data)
            self._waiting_for_client.add(peer)
        elif data and end in self._waiting_for_client:
            self._waiting_for_client.remove(end)
            self.round_trips += 1
        with contextlib.suppress(OSError):
            peer.sendall(data)
        if not data:
            for closed in (end, peer):
                self._selector.unregister(closed)
                del self._peers[closed]
                closed.close()
