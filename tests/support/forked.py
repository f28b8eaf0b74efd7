"""Run functions in a forked child of the test."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.deadlines import DEADLINE_SECONDS

# Python 3.12 and later warn if the process has threads, as pytest and the package do.
forks = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_child(work: Callable[[], Any], seconds: float = DEADLINE_SECONDS) -> Any:
    """Return the result of `work` in a forked child, through JSON; fail if it raises or hangs."""
    result = start_child(work)
    return result(seconds)


def start_child(work: Callable[[], Any]) -> Callable[[float], Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            answer = json.dumps({"result": work()})
            status = 0
        except BaseException as error:  # noqa: BLE001 (reported to the parent)
            answer = json.dumps({"error": f"{type(error).__name__}: {error}"})
        os.write(writing, answer.encode())
        os._exit(status)
    os.close(writing)

    def result(seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, 9)
                os.waitpid(pid, 0)
                os.close(reading)
                pytest.fail("the child hangs")
            time.sleep(0.005)
        with os.fdopen(reading) as pipe:
            answer = json.loads(pipe.read())
        assert "error" not in answer, answer["error"]
        return answer["result"]

    return result
