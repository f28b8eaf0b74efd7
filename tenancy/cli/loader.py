"""Find the fleet that the command is about."""

from __future__ import annotations

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

__all__ = ["Named", "open_tenancy", "tenant_of"]


class Named(NamedTuple):
    """What names the fleet on the command line: ``--app`` and ``--url``."""

    app: str | None
    url: str | None


@contextmanager
def open_tenancy(context: typer.Context) -> Iterator[Tenancy]:
    """Yield the fleet that ``--app`` names, or one without code; close it at the end.

    A TenantNotFound of the block leaves it with the slugs that may have been meant.
    """
    named: Named = context.obj
    tenants = _find(named.app)
    try:
        if named.url is not None:
            _check_url(tenants, named.url)
        yield tenants
    except TenantNotFound as error:
        raise _with_suggestions(error, tenants) from error
    finally:
        tenants.close()


def tenant_of(tenants: Tenancy, named: str) -> Tenant:
    """Return the tenant with a slug or an id. Raises TenantNotFound, and CommandError where these are two tenants."""
    try:
        by_id = tenants.fleet.registry.get(UUID(named))
    except ValueError:
        by_id = None
    if by_id is None:
        return tenants[named]
    if named in tenants and tenants[named].id != by_id.id:
        msg = f"{named!r} is the slug of one tenant and the id of another."
        raise CommandError(msg, remedy="Give the id of the first, or the slug of the second: tenancy list --json")
    return by_id


def _with_suggestions(error: TenantNotFound, tenants: Tenancy) -> TenantNotFound:
    from tenancy.model.slugs import MAX_LENGTH  # noqa: PLC0415 (as slow as whatever has just failed)

    slugs = tenants.slugs()
    close = get_close_matches((error.tenant or "")[:MAX_LENGTH].casefold(), slugs, n=3)
    remedy = "All tenants: tenancy list" if slugs else "There are no tenants yet. Create one: tenancy create SLUG"
    if close:
        remedy = f"Did you mean {' or '.join(map(repr, close))}?"
    return TenantNotFound(error.message, remedy=error.remedy or remedy, tenant=error.tenant)


def _check_url(tenants: Tenancy, url: str) -> None:
    """Refuse to act on another database than the one that ``--url`` names: code may bring a URL of its own."""
    from eventsourcing_sqlalchemy.settings import mask, parse_url  # noqa: PLC0415 (slow; it is loaded by now)

    wanted, used = parse_url(url, "--url"), tenants.settings.url
    if wanted != used:
        msg = f"--url names {mask(wanted)}, and the code uses {mask(used)}. Nothing was done."
        raise CommandError(msg, remedy="Drop --url, or do not pass SQLALCHEMY_URL in the code.")


def _find(app: str | None) -> Tenancy:
    registry_cache = Path.cwd()
    if not app:
        app, registry_cache = _configured(registry_cache)
    for path in dict.fromkeys((str(registry_cache), str(Path.cwd()))):
        if path not in sys.path:
            sys.path.insert(0, path)
    from tenancy import Tenancy  # noqa: PLC0415 (slow: it loads the database)

    if not app:
        return Tenancy()
    found = _load(app)
    if callable(found) and not isinstance(found, Tenancy):
        with _code_of(app):
            found = found()
    if not isinstance(found, Tenancy):
        msg = f"{app!r} is {type(found).__name__}, and neither a Tenancy nor a function that returns one."
        raise CommandError(msg, remedy="Name it so: --app module:tenants")
    return found


def _configured(registry_cache: Path) -> tuple[str | None, Path]:
    """Return what the nearest pyproject.toml names, and where that is."""
    for parent in (registry_cache, *registry_cache.parents):
        path = parent / "pyproject.toml"
        if path.is_file():
            try:
                settings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("tenancy")
            except (OSError, ValueError) as error:
                msg = f"{path} cannot be read: {error}."
                raise CommandError(msg, remedy="Mend it, or give --app.") from error
            if settings is not None:
                app = settings.get("app") if isinstance(settings, dict) else None
                if not isinstance(app, str):
                    msg = f"{path} has [tool.tenancy], and no text 'app' in it."
                    raise CommandError(msg, remedy='Write: app = "module:tenants"')
                return app, parent
    return None, registry_cache


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
            msg = f"There is no module {module_name!r} in {os.fsdecode(Path.cwd())} or in what is installed."
            raise CommandError(msg, remedy="Run it where the code is, or name another one: --app.") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            msg = f"The module {module_name!r} has no {name!r}."
            raise CommandError(msg, remedy="Name the variable that holds the Tenancy: --app module:tenants") from error
    return found


@contextmanager
def _code_of(app: str) -> Iterator[None]:
    """Make an error of the user's code one of the command."""
    from eventsourcing.persistence import PersistenceError  # noqa: PLC0415 (slow; it is loaded next in any case)

    from eventsourcing_sqlalchemy.errors import SettingsError  # noqa: PLC0415 (as above)

    try:
        yield
    except (CommandError, TenancyError, SettingsError, PersistenceError):
        raise
    except Exception as error:
        msg = f"The code of {app!r} fails with {type(error).__name__}: {error}."
        raise CommandError(msg, remedy="See where: tenancy --traceback ...") from error
    except SystemExit as error:
        msg = f"The code of {app!r} ends the process when it is imported."
        raise CommandError(msg, remedy='Guard it: if __name__ == "__main__":') from error
