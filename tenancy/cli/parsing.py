"""Groups and verbs whose errors of usage lead to the help that has the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperCommand, TyperGroup

from tenancy.cli.errors import CommandError, UsageError

__all__ = ["Command", "Group"]


class Command(TyperCommand):
    """A verb of the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a verb."""
        with _helping(ctx):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """Verbs of the command line, and the options before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before a verb."""
        with _helping(ctx):
            return super().parse_args(ctx, args)


@contextmanager
def _helping(ctx: Any) -> Iterator[None]:
    """Give an error of usage the context that it comes from, which the parser does not always know; raise CommandError
    for an option that belongs elsewhere.
    """
    try:
        yield
    except UsageError as error:
        # What `exec` runs has options of its own: its help says how they are given.
        if hasattr(error, "possibilities") and ctx.info_name != "exec":
            _check_place(error.option_name, ctx)
        error.ctx = error.ctx or ctx
        raise


def _check_place(option: str, ctx: Any) -> None:
    root = ctx.find_root()
    if ctx is not root and option in _options(root.command):
        verb = ctx.command_path.removeprefix(f"{root.info_name} ")
        msg = f"The option {option} stands behind the verb."
        raise CommandError(msg, remedy=f"Put it before the verb: {root.info_name} {option} ... {verb}")
    if any(option in _options(verb) for verb in getattr(ctx.command, "commands", {}).values()):
        msg = f"The option {option} stands before the verb."
        raise CommandError(msg, remedy=f"Put it behind the verb: {ctx.command_path} VERB {option}")


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}
