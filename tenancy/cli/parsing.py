"""Typer commands and groups whose usage errors point to the right help page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from typer.core import TyperCommand, TyperGroup

from tenancy.cli.errors import CommandError, UsageError
from tenancy.cli.output_file import written_to

__all__ = ["ARGUMENTS", "Command", "Group"]


ARGUMENTS: Final = "tenancy.arguments"
"""The key of ``context.meta`` for the arguments that follow the command."""


class Command(TyperCommand):
    """A command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of a command."""
        ctx.meta[ARGUMENTS] = list(args)
        with _explained(ctx):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command, with its output in the file of ``--output``, if it has that option."""
        try:
            with written_to(ctx.params.get("output")):
                return super().invoke(ctx)
        except CommandError as error:
            if error.code == "usage" and "--help" not in error.remedy:
                error.remedy = f"{error.remedy.removesuffix('.')}. See: {ctx.command_path} --help".lstrip(". ")
            raise


class Group(TyperGroup):
    """A group of commands, with the options before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options before a command."""
        with _explained(ctx):
            return super().parse_args(ctx, args)


@contextmanager
def _explained(ctx: Any) -> Iterator[None]:
    """Add the context to a usage error, which the parser does not always do. Raise CommandError for an option in the
    wrong position.
    """
    try:
        yield
    except UsageError as error:
        # `exec` runs programs with options of their own; its help explains how to pass them.
        if hasattr(error, "possibilities") and ctx.info_name != "exec":
            _check_position(error.option_name, ctx)
        error.ctx = error.ctx or ctx
        raise


def _check_position(option: str, ctx: Any) -> None:
    root = ctx.find_root()
    if ctx is not root and option in _options(root.command):
        command = ctx.command_path.removeprefix(f"{root.info_name} ")
        msg = f"Option {option} is placed after the command."
        raise CommandError(msg, remedy=f"Put it before the command: {root.info_name} {option} ... {command}")
    if any(option in _options(command) for command in getattr(ctx.command, "commands", {}).values()):
        msg = f"Option {option} is placed before the command."
        raise CommandError(msg, remedy=f"Put it after the command: {ctx.command_path} COMMAND {option}")


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}
