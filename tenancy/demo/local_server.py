"""A server process of our own: a temporary directory, an unprivileged user, and nothing left afterwards.

What is common to PostgreSQL (`server.py`) and to what the tests put in front of it; it knows neither.
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

from tenancy.demo import watchdog

START_SECONDS = 60.0  # Crash recovery on a busy machine takes a while; a healthy start takes a fraction of a second.
STOP_SECONDS = 30.0
POLL_SECONDS = 0.01
LOG_TAIL_LINES = 20


class OtherUser(TypedDict, total=False):
    """The arguments of `subprocess` that switch the user; none when the current user serves."""

    user: int
    group: int
    extra_groups: list[int]


class ServerError(RuntimeError):
    """A server could not be started or stopped; the message ends with the tail of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 on which nothing listens.

    It lies below the range that systems give to outgoing connections: a client that reconnects in a loop while the
    server is down could otherwise be given this very port, connect to itself, and keep the server from coming back.
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

    When the owner dies without `close()`, a watchdog process does the same within a second. Not thread-safe.
    """

    name: str
    host = "127.0.0.1"
    quit_signal = signal.SIGQUIT
    """Ends it at once, but not as SIGKILL does, after which shared memory would stay behind."""

    def __init__(self) -> None:
        self.port = free_port()
        # Short and outside of any private directory: it holds unix sockets (107 bytes at most) of another user.
        self.directory = Path(tempfile.gettempdir(), f"{self.name.lower()}-{secrets.token_hex(4)}")
        self.log_file = self.directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.as_user: OtherUser = _unprivileged_user() if os.geteuid() == 0 else {}  # These servers refuse root.
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        """Whether the process that `start()` made is alive."""
        return self.process is not None and self.process.poll() is None

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """The file in which the server writes its process id."""

    @abstractmethod
    def _prepare(self) -> None:
        """Fill the new directory with what the server needs."""

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
        """Start the server and wait until it accepts connections; the first time, make its directory before."""
        if self.is_running:
            raise ServerError(f"{self.name} is running already, on port {self.port}.")
        if not self.directory.exists():
            self._make_directory()
            self._prepare()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.directory,  # The other user may not be allowed into ours.
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the owner, who then stops the server in good order.
                **self.as_user,
            )
        self._wait_until_ready()

    def kill(self) -> None:
        """End all processes of the server with SIGKILL, at once, as a crash of the machine would; its files stay."""
        if self.process is None or not self.is_running:
            return
        main = psutil.Process(self.process.pid)
        main.suspend()  # So that it makes no children while we list them.
        children = main.children(recursive=True)
        # The main process last: its children notice when it has gone, and do more than a machine that crashes.
        for process in (*children, main):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        # What is still in memory would keep a new server from starting.
        deadline = time.monotonic() + STOP_SECONDS
        while any(_is_alive(child) for child in children):
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} left processes after SIGKILL.\n{self.log_tail()}")
            time.sleep(POLL_SECONDS)

    def close(self) -> None:
        """Stop the server and remove its files. Does nothing the second time."""
        try:
            self._end(self.quit_signal)
        except ServerError:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self._watchdog is not None:  # Last: if we are interrupted above, it does the rest.
            self._watchdog.kill()
            self._watchdog.wait()
            self._watchdog = None

    def log_tail(self) -> str:
        """Return the last lines of the server's log."""
        if not self.log_file.exists():
            return "(no log)"
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def _end(self, number: signal.Signals) -> None:
        """Send a signal that ends the server, and wait until it has ended."""
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
    # It is not our child: whether anybody reaps it is not ours to wait for.
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
