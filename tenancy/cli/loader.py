"""Load the Tenancy that a command works on."""

from __future__ import annotations

import gc
import os
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import typer

from tenancy.cli.errors import CommandError
from tenancy.errors import TenancyError, TenantNotFound

if TYPE_CHECKING:
    from tenancy import Tenancy, Tenant

__all__ = ["FleetOptions", "open_tenancy", "tenant_of"]


class FleetOptions(NamedTuple):
    """The options that select a fleet: ``--app`` and ``--url``."""

    app: str | None
    url: str | None


@contextmanager
def open_tenancy(context: typer.Context) -> Iterator[Tenancy]:
    """Yield the Tenancy that ``--app`` names, or one without applications; close it at the end.

    A TenantNotFound from the block is raised again with suggestions.
    """
    options: FleetOptions = context.obj
    tenants = _find(options.app)
    _enable_collector()
    try:
        if options.url is not None:
            _check_url(tenants, options.url)
        yield tenants
    except TenantNotFound as error:
        raise _with_suggestions(error, tenants) from error
    finally:
        tenants.close()


def _enable_collector() -> None:
    """Enable the garbage collector, which the entry point has disabled, except for what has been loaded since."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def tenant_of(tenants: Tenancy, slug_or_id: str) -> Tenant:
    """Return a tenant by slug or id. Raises TenantNotFound, and CommandError when two tenants match."""
    try:
        by_id = tenants.fleet.registry.get(UUID(slug_or_id))
    except ValueError:
        by_id = None
    if by_id is None:
        return tenants[slug_or_id]
    if slug_or_id in tenants and tenants[slug_or_id].id != by_id.id:
        msg = f"{slug_or_id!r} is the slug of one tenant and the id of another."
        raise CommandError(msg, remedy="Pass the id of the first or the slug of the second: tenancy list --json")
    return by_id


def _with_suggestions(error: TenantNotFound, tenants: Tenancy) -> TenantNotFound:
    from tenancy.model.slugs import MAX_LENGTH  # noqa: PLC0415 (slow; only for errors)

    slugs = tenants.slugs()
    close = get_close_matches((error.tenant or "")[:MAX_LENGTH].casefold(), slugs, n=3)
    remedy = "List all tenants: tenancy list" if slugs else "There are no tenants yet. Create one: tenancy create SLUG"
    if close:
        remedy = f"Did you mean {' or '.join(map(repr, close))}?"
    return TenantNotFound(error.message, remedy=error.remedy or remedy, tenant=error.tenant)


def _check_url(tenants: Tenancy, url: str) -> None:
    """Refuse to act on any database but the one in ``--url``: the code may set a URL of its own."""
    from eventsourcing_sqlalchemy.settings import mask, parse_url  # noqa: PLC0415 (slow; loaded by now)

    wanted, used = parse_url(url, "--url"), tenants.settings.url
    if wanted != used:
        msg = f"--url names {mask(wanted)}, but the code uses {mask(used)}. Nothing was changed."
        raise CommandError(msg, remedy="Omit --url, or remove SQLALCHEMY_URL from the code.")


def _find(app: str | None) -> Tenancy:
    directory = Path.cwd()
    if not app:
        app, directory = _configured(directory)
    for path in dict.fromkeys((str(directory), str(Path.cwd()))):
        if path not in sys.path:
            sys.path.insert(0, path)
    from tenancy import Tenancy  # noqa: PLC0415 (slow: loads SQLAlchemy)

    if not app:
        return Tenancy()
    found = _load(app)
    if callable(found) and not isinstance(found, Tenancy):
        with _code_of(app):
            found = found()
    if not isinstance(found, Tenancy):
        msg = f"{app!r} is of type {type(found).__name__}: neither a Tenancy nor a function that returns one."
        raise CommandError(msg, remedy="Name a Tenancy: --app module:tenants")
    return found


def _configured(directory: Path) -> tuple[str | None, Path]:
    """Return the app that the nearest pyproject.toml names, and the directory of that file."""
    for parent in (directory, *directory.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            try:
                settings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("tenancy")
            except (OSError, ValueError) as error:
                msg = f"{path} cannot be read: {error}."
                raise CommandError(msg, remedy="Fix the file, or pass --app.") from error
            if settings is not None:
                app = settings.get("app") if isinstance(settings, dict) else None
                if not isinstance(app, str):
                    msg = f"[tool.tenancy] in {path} has no string 'app'."
                    raise CommandError(msg, remedy='Add one: app = "module:tenants"')
                return app, parent
    return None, directory


def _load(app: str) -> Any:
    module_name, colon, name = app.partition(":")
    if not (module_name and colon and name):
        msg = f"{app!r} is not of the form module:name."
        raise CommandError(msg, remedy="Name the variable that holds the Tenancy: --app module:tenants")
    with _code_of(app):
        try:
            found: Any = import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            msg = f"There is no module {module_name!r} in {os.fsdecode(Path.cwd())} or among installed packages."
            raise CommandError(msg, remedy="Run the command in the directory of the code, or fix --app.") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            msg = f"Module {module_name!r} has no {name!r}."
            raise CommandError(msg, remedy="Name the variable that holds the Tenancy: --app module:tenants") from error
    return found


@contextmanager
def _code_of(app: str) -> Iterator[None]:
    """Turn an error of the user's code into a CommandError."""
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 (slow; loaded next in any case)

    from eventsourcing_sqlalchemy.errors import SettingsError  # noqa: PLC0415 (as above)

    try:
        yield
    except (CommandError, TenancyError, SettingsError, PersistenceError):
        raise
    except Exception as error:
        msg = f"Loading {app!r} failed with {type(error).__name__}: {error}."
        raise CommandError(msg, remedy="Show the traceback: tenancy --traceback ...") from error
    except SystemExit as error:
        msg = f"Loading {app!r} exits the process."
        raise CommandError(msg, remedy='Guard the call: if __name__ == "__main__":') from error
