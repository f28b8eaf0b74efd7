"""A process that serves one tenant and reports the outcome of each kind of call.

It has the tenant's variables. Each line of input is a call, answered with one line.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from tests.samples.kennels import Dog, Kennel


def main() -> None:
    """Serve until the end of the input."""
    kennel = Kennel()
    recorder: Any = kennel.recorder
    transaction: Any = None
    subscription: Any = None

    def begin() -> None:
        nonlocal transaction
        transaction = recorder.transaction()
        transaction.__enter__()
        kennel.save(Dog(name="in a transaction"))

    def commit() -> None:
        transaction.__exit__(None, None, None)

    def subscribe() -> None:
        nonlocal subscription
        subscription = recorder.subscribe(gt=0)
        next(subscription)

    def follow() -> None:
        while True:
            next(subscription)

    calls: dict[str, Callable[[], Any]] = {
        "write": lambda: kennel.register("Rex"),
        "read": kennel.names,
        "begin": begin,
        "commit": commit,
        "subscribe": subscribe,
        "follow": follow,
    }
    for line in sys.stdin:
        try:
            calls[line.strip()]()
        except Exception as error:  # noqa: BLE001 (reported)
            print(type(error).__name__, flush=True)  # noqa: T201 (as above)
        else:
            print("done", flush=True)  # noqa: T201 (as above)


main()
