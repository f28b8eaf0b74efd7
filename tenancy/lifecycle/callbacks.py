"""Named functions of users: what hooks and reactions have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar
from weakref import ref

from tenancy.arguments import check_type
from tenancy.errors import InvalidArgument, TenancyClosed

if TYPE_CHECKING:
    from tenancy.model.tenant import ApplicationSource

__all__ = ["Callback", "Callbacks", "Host"]

_F = TypeVar("_F", bound=Callable[..., object])


class Host(Protocol):
    """The Tenancy object whose tenants the functions get."""


class Callback(NamedTuple, Generic[_F]):
    """A function with the name under which the registry records it."""

    name: str
    call: _F
    events: frozenset[str] = frozenset()
    """The events that it is for; empty for all."""


class Callbacks(Generic[_F]):
    """The functions of one kind that this process has registered, in order."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._by_name: dict[str, Callback[_F]] = {}
        self._host: Callable[[], ApplicationSource | None] = lambda: None

    def __iter__(self) -> Iterator[Callback[_F]]:
        return iter(tuple(self._by_name.values()))

    def __len__(self) -> int:
        return len(self._by_name)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def serve(self, host: ApplicationSource) -> None:
        """Set the Tenancy object whose tenants the functions get. It is not kept alive."""
        self._host = ref(host)

    @property
    def host(self) -> ApplicationSource:
        """The Tenancy object; raises TenancyClosed when it is gone."""
        host = self._host()
        if host is None:
            raise TenancyClosed
        return host

    def register(self, function: _F, name: str | None, events: Iterable[str] = ()) -> None:
        """Register a function. Raises InvalidArgument for one without a name, or with a name that is taken."""
        if not callable(function):
            msg = f"{self._kind} {function!r} is not a function."
            raise InvalidArgument(msg, remedy="Use the decorator above a function.")
        if inspect.iscoroutinefunction(function):
            msg = f"{self._kind} {function.__name__!r} is a coroutine function, which would not be awaited."
            raise InvalidArgument(msg, remedy="Use a plain function. It may call asyncio.run().")
        found: Any = getattr(function, "__name__", "") if name is None else name
        check_type("The name", found, str, 'text: name="seed"')
        if not found.isidentifier():
            msg = f"{self._kind} {function!r} has no usable name: the registry records it under its name."
            raise InvalidArgument(msg, remedy='Pass one of letters, digits and _, which never changes: name="seed"')
        if found in self._by_name:
            msg = f"Two functions have the name {found!r}: the registry could not tell them apart."
            raise InvalidArgument(msg, remedy='Pass another one: name="..."')
        self._by_name[found] = Callback(found, function, frozenset(events))
