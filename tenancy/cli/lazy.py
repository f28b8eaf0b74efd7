"""Commands that are imported when they are used: a command need not wait for the modules of all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import Any

import typer

from tenancy.cli.parsing import Command, Group

__all__ = ["LazyCommands", "command_of", "group_of", "loaded"]


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, in their order; each is constructed once, when it is looked up."""

    def __init__(self, constructors: Mapping[str, Callable[[], Any]]) -> None:
        self._constructors = dict(constructors)
        self._commands: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._commands:
            self._commands[name] = self._constructors[name]()
        return self._commands[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._constructors[name] = lambda: command
        self._commands.pop(name, None)

    def __delitem__(self, name: str) -> None:
        del self._constructors[name]
        self._commands.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._constructors  # the one of Mapping would construct the command

    def __iter__(self) -> Iterator[str]:
        return iter(self._constructors)

    def __len__(self) -> int:
        return len(self._constructors)


def loaded(topic: str) -> Any:
    """Return what ``module:name`` names, in this package's commands."""
    module, _, name = topic.partition(":")
    return getattr(import_module(f"tenancy.cli.commands.{module}"), name)


def command_of(name: str, topic: str, example: str) -> Any:
    """Return the command that a function implements."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, cls=Command, epilog=f"Example: {example}")(loaded(topic))
    return typer.main.get_command(alone)


def group_of(name: str, topic: str, description: str, callback: Callable[..., None]) -> Any:
    """Return a group of commands; ``callback`` is called before each of them, and without one."""
    around = typer.Typer(cls=Group, add_completion=False, rich_markup_mode=None)
    around.add_typer(
        loaded(topic),
        name=name,
        help=description,
        callback=callback,
        invoke_without_command=True,
        no_args_is_help=False,
    )
    command: Any = typer.main.get_command(around)
    return command.commands[name]
