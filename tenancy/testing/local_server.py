"""Run a server process in a temporary directory, as an unprivileged user, and leave nothing behind.

The base class of the PostgreSQL server in `postgresql.py`, and of other servers that tests start.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Self, TypedDict

import psutil

from tenancy.testing import watchdog

__all__ = ["LocalServer", "ServerError", "free_port"]

START_SECONDS = 60.0  # Crash recovery on a busy machine takes a while; a healthy start takes a fraction of a second.
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01
LOG_TAIL_LINES = 20


class OtherUser(TypedDict, total=False):
    """The `subprocess` arguments that switch the user; empty to keep the current user."""

    user: int
    group: int
    extra_groups: list[int]


class ServerError(RuntimeError):
    """A server could not be started or stopped; the message ends with the tail of its log."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1.

    It lies below the range of ephemeral ports. Otherwise a client that reconnects in a loop while the server is down
    could be assigned this port, connect to itself, and keep the server from restarting.
    """
    while True:
        port = 15000 + secrets.randbelow(17000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class LocalServer(ABC):
    """Start, stop and kill one server process; `close()` removes its files.

    If the owner dies without `close()`, a watchdog process cleans up within a second. Not thread-safe.
    """

    name: str
    host = "127.0.0.1"
    quit_signal = signal.SIGQUIT
    """Stops the server immediately but in order: SIGKILL would leave shared memory behind."""

    def __init__(self) -> None:
        self.port = free_port()
        # A short path outside private directories: it holds unix sockets (at most 107 bytes) of another user.
        self.directory = Path(tempfile.gettempdir(), f"{self.name.lower()}-{secrets.token_hex(4)}")
        self.log_file = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.as_user: OtherUser = _unprivileged_user() if os.geteuid() == 0 else {}  # These servers refuse root.
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process that `start()` created is alive."""
        return self.process is not None and self.process.poll() is None

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """The file to which the server writes its process id."""

    @abstractmethod
    def _prepare(self) -> None:
        """Create the server's files in the new directory."""

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the command that runs the server in the foreground."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Tell whether the started process accepts connections."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the server and wait until it accepts connections. The first start creates its directory."""
        if self.is_running:
            raise ServerError(f"{self.name} is already running on port {self.port}.")
        if not self.directory.exists():
            self._make_directory()
            self._prepare()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.directory,  # The other user may have no access to the current directory.
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the owner, which then stops the server.
                **self.as_user,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """Kill all server processes with SIGKILL, as a machine crash would; keep the files."""
        if self.process is None or not self.is_running:
            return
        main = psutil.Process(self.process.pid)
        main.suspend()  # So that it starts no children while they are listed.
        children = main.children(recursive=True)
        # The main process last: its children notice its end and clean up, which a machine crash would not allow.
        for process in (*children, main):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        # A surviving process would keep a new server from starting.
        deadline = time.monotonic() + STOP_SECONDS
        while any(_is_alive(child) for child in children):
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} left processes after SIGKILL.\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stop the server and remove its files. Idempotent."""
        try:
            self._end(self.quit_signal)
        except ServerError:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._watchdog is not None:  # Last: it finishes the clean-up if this method is interrupted.
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None

    def log_tail(self) -> str:
        """Return the last lines of the server's log."""
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _end(self, number: signal.Signals) -> None:
        """Send a signal that stops the server, and wait until it has stopped."""
        if self.process is None or not self.is_running:
            return
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ServerError(f"{self.name} did not stop within {STOP_SECONDS} s.\n{self.log_tail()}") from error

    def _make_directory(self) -> None:
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", watchdog.__file__, str(os.getpid()), str(self.directory), str(self.pid_file)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # An inherited pipe would keep `make demo | less` waiting.
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.directory.mkdir(mode=0o700)
        self._give(self.directory)

    def _give(self, path: Path) -> None:
        """Make the server's user the owner of a file or directory."""
        if self.as_user:
            os.chown(path, self.as_user["user"], self.as_user["group"], follow_symlinks=False)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if not self.is_running:
                raise ServerError(f"{self.name} did not start.\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start within {START_SECONDS} s.\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)


def _unprivileged_user() -> OtherUser:
    try:
        user = pwd.getpwnam("postgres")
    except KeyError:
        user = pwd.getpwnam("nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _is_alive(process: psutil.Process) -> bool:
    # It is a grandchild: another process reaps it, so a zombie counts as gone.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
