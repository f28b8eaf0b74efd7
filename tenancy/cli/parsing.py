"""Groups and verbs whose errors of usage lead to the help that has the answer."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from tenancy.cli.failures import CommandError, UsageError

__all__ = ["Group", "Verb"]


class Verb(TyperCommand):
    """A verb of the command line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; what is wrong with them is said with the help that has the answer."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            raise _placed(error, ctx) from error


class Group(TyperGroup):
    """Verbs of the command line, and the options before them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments; what is wrong with them is said with the help that has the answer."""
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            raise _placed(error, ctx) from error


def _placed(error: Any, ctx: Any) -> Any:
    """Return an error of usage with the context that it comes from, which the parser does not always know, or one that
    says where an option belongs.
    """
    option = getattr(error, "option_name", None)
    # What `exec` runs has options of its own: its help says how they are given.
    if hasattr(error, "possibilities") and ctx.info_name != "exec":
        root = ctx.find_root()
        if ctx is not root and option in _options(root.command):
            verb = ctx.command_path.removeprefix(f"{root.info_name} ")
            msg = f"The option {option} stands behind the verb."
            return CommandError(msg, remedy=f"Put it before the verb: {root.info_name} {option} ... {verb}")
        if any(option in _options(verb) for verb in getattr(ctx.command, "commands", {}).values()):
            msg = f"The option {option} stands before the verb."
            return CommandError(msg, remedy=f"Put it behind the verb: {ctx.command_path} VERB {option}")
    error.ctx = error.ctx or ctx
    return error


def _options(command: Any) -> set[str]:
    return {option for parameter in command.params for option in parameter.opts}
