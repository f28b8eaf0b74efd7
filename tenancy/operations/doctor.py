"""Examine a fleet, report faults with remedies, and repair what is safe to repair automatically."""

from __future__ import annotations

import platform
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from eventsourcing.persistence import PersistenceError

from eventsourcing_sqlalchemy import sequences
from tenancy.errors import (
    EncodingMismatch,
    RegistryMismatch,
    RegistryMissing,
    RegistryUnavailable,
    TenancyError,
    TenantNotFound,
)
from tenancy.lifecycle.reaction_monitor import ReactionMonitor
from tenancy.model.application_spec import encodings_of
from tenancy.model.encodings import PLAIN, check_encoding
from tenancy.model.quotas import quotas_fault
from tenancy.model.tenant import Action, TenantStatus
from tenancy.model.weights import weight_fault
from tenancy.operations.migrations import Migrate
from tenancy.registry import FORMAT
from tenancy.registry.remedies import remedy_of
from tenancy.storage.extra_tables import check_code

if TYPE_CHECKING:
    from eventsourcing_sqlalchemy.datastore import SQLAlchemyDatastore
    from eventsourcing_sqlalchemy.dialects.protocols import Right, SequenceBehind
    from tenancy.fleet import Fleet
    from tenancy.model.tenant import Tenant

__all__ = ["Finding", "Level", "examine", "is_unreachable", "repair"]

Level = Literal["ok", "warning", "failure"]

PERSISTENCE: Final = "eventsourcing-sqlalchemy"
_IMPORTED: Final = "eventsourcing_sqlalchemy"

# Creating or purging a tenant takes less. A step that takes longer counts as a failure.
_LONG: Final = timedelta(seconds=60)

_HALF_DONE: Final = {
    TenantStatus.PROVISIONING: "is being created",
    TenantStatus.PURGING: "is being purged",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of the examination, or one repair."""

    name: str
    """The subject: ``database``, ``rights``, ``versions``, ``driver``, ``pooler``, ``distributions``,
    ``registry``, ``applications``, ``hooks``, ``reactions``, ``tables``, ``migrations``, ``drift``, ``sequences``,
    ``steps``, ``limits``, ``orphans``, ``due``.
    """
    level: Level
    what: str
    remedy: str = ""
    tenant: str | None = None
    """The slug of the tenant, for a finding about one tenant."""


def examine(fleet: Fleet) -> Sequence[Finding]:
    """Return all findings about a fleet. Nothing is changed."""
    findings = [*_versions(), _distributions()]
    database = [*_databases(fleet)]
    findings += database
    if is_unreachable(database):
        return findings
    findings += _connection(fleet)
    every: Sequence[Tenant] = ()
    try:
        fleet.registry.check_format()
        every = fleet.registry.list()
        what = f"Format {FORMAT}, in {fleet.registry.datastore.shared}."
        findings.append(Finding(name="registry", level="ok", what=what))
        findings += _fleet(fleet, every)
    except (RegistryMissing, RegistryMismatch) as error:
        findings.append(_failure("registry", error))
    except PersistenceError as error:
        findings.append(Finding(name="registry", level="failure", what=f"It cannot be examined: {error}."))
    findings += _rights(fleet, every)
    return findings


def is_unreachable(findings: Sequence[Finding]) -> bool:
    """Return whether a database did not answer, so that nothing else was examined."""
    return any(finding.name == "database" and finding.level == "failure" for finding in findings)


def _failure(name: str, error: TenancyError) -> Finding:
    return Finding(name=name, level="failure", what=error.message, remedy=error.remedy, tenant=error.tenant)


# -- the installation --


def _versions() -> Iterator[Finding]:
    installed = [f"{name} {metadata.version(name)}" for name in ("eventsourcing", "sqlalchemy")]
    yield Finding(name="versions", level="ok", what=f"Python {platform.python_version()}, {', '.join(installed)}.")


def _distributions() -> Finding:
    """Report other distributions with the same import name: the upstream package has the same name, too."""
    found = set()
    for each in metadata.distributions():
        name = each.metadata["Name"]
        if name.lower().replace("_", "-") == PERSISTENCE or any(
            file.parts[0] == _IMPORTED for file in each.files or ()
        ):
            found.add(f"{name} {each.version} in {each.locate_file('')}")
    if len(found) <= 1:
        return Finding(name="distributions", level="ok", what=f"One installed distribution provides {_IMPORTED}.")
    return Finding(
        name="distributions",
        level="failure",
        what=f"Several installed distributions provide {_IMPORTED}; which one is imported is undefined: "
        f"{'; '.join(sorted(found))}.",
        remedy=f"Uninstall all of them (pip uninstall {PERSISTENCE}) and install this one again.",
    )


# -- the database --


def _databases(fleet: Fleet) -> Iterator[Finding]:
    shard, registry = fleet.shard.datastore, fleet.registry.datastore
    is_one = fleet.settings.registry_is_beside
    for what, datastore in (("tenants", shard), ("registry", registry)):
        if is_one and datastore is registry:
            return
        try:
            version = datastore.run(datastore.dialect.server_version)
        except PersistenceError as error:
            remedy = remedy_of(error) or ("Start the server, and check SQLALCHEMY_URL, its password and the network.")
            yield Finding(name="database", level="failure", what=f"It does not answer: {error}.", remedy=remedy)
            return
        of = "tenants and registry" if is_one else what
        yield Finding(name="database", level="ok", what=f"{version} answers ({of}): {datastore.shared}.")


def _connection(fleet: Fleet) -> Iterator[Finding]:
    datastore = fleet.shard.datastore
    dialect = datastore.dialect
    version = getattr(datastore.engine.dialect.dbapi, "__version__", "").partition(" ")[0]
    yield Finding(name="driver", level="ok", what=f"{dialect.driver} {version}".rstrip() + ".")
    if not dialect.is_server:
        return
    with datastore.get_connection() as connection:
        is_pooled = dialect.is_behind_pooler(connection.connection.dbapi_connection)
    if not is_pooled:
        yield Finding(name="pooler", level="ok", what="No pooler: the server answers directly.")
    elif datastore.settings.listen_url is not None:
        yield Finding(name="pooler", level="ok", what="A pooler is in use; wake-ups use a direct connection.")
    else:
        remedy = "Set SQLALCHEMY_LISTEN_URL to the server's own address. Until then, followers poll."
        yield Finding(name="pooler", level="warning", what="A pooler is in use.", remedy=remedy)


def _rights(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    datastore = fleet.shard.datastore
    schemas = {
        spec.name.schema
        for tenant in every
        for spec in fleet.inventory.specs(tenant.placement, fleet.application_specs())
    }
    missing = datastore.run(lambda executor: datastore.dialect.missing_rights(executor, sorted(schemas, key=str)))
    if not missing:
        yield Finding(name="rights", level="ok", what="This role may create tenants, read and write.")
    for right, remedy in missing.items():
        what, level = _RIGHTS[right]
        yield Finding(name="rights", level=level, what=f"This role may not {what}.", remedy=f"If it should: {remedy}")


# A role that serves tenants may lack the right to create them, and a role that reads the right to write.
_RIGHTS: Final[Mapping[Right, tuple[str, Level]]] = {
    "create": ("create schemas and tables, so it cannot create tenants", "warning"),
    "write": ("write to all tables of tenants", "warning"),
    "read": ("read all tables of tenants", "failure"),
}


# -- the registry --


def _fleet(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    yield from _applications(fleet)
    yield from _hooks(fleet)
    yield from _reactions(fleet, every)
    yield from _steps(fleet, every)
    yield from _limits(every)
    yield from _tables(fleet, every)
    yield from _migrations(fleet, every)
    yield from _drift(fleet, every)
    yield from _sequences(fleet, every)
    yield from _orphans(fleet, every)
    yield from _due(fleet)


def _applications(fleet: Fleet) -> Iterator[Finding]:
    recorded = {each["application"]: each for each in fleet.registry.fleet_settings().get("applications", [])}
    if not recorded and not fleet.applications:
        remedy = "Record them: tenancy --app module:tenants init"
        yield Finding(name="applications", level="failure", what="No application is recorded.", remedy=remedy)
        return
    if not fleet.applications:
        yield Finding(name="applications", level="ok", what=f"Recorded are {', '.join(recorded)}.")
        return
    code = {each.application: each.to_json() for each in fleet.application_specs()}
    mismatches = list(_mismatches(fleet, recorded))
    yield from mismatches
    is_same = not mismatches
    for name in sorted({*code, *recorded}):
        if code.get(name) == recorded.get(name):
            continue
        is_same = False
        if name not in recorded:
            what, remedy = "is in the code and not recorded", "Record it and create its tables: tenancy doctor --repair"
        elif name not in code:
            what, remedy = "is recorded and not in the code", "If it was removed for good: tenancy init"
        else:
            what, remedy = (
                "is recorded with other tables",
                "Record the tables of the code: tenancy init, then tenancy doctor",
            )
        level: Level = "failure" if name not in recorded else "warning"
        yield Finding(name="applications", level=level, what=f"{name} {what}.", remedy=remedy)
    if is_same:
        yield Finding(
            name="applications", level="ok", what=f"All applications of the code are recorded: {', '.join(code)}."
        )


def _mismatches(fleet: Fleet, recorded: Container[str]) -> Iterator[Finding]:
    encodings = fleet.registry.encodings()
    for application, encoding in encodings_of(fleet.application_specs()).items():
        if application in recorded:
            try:
                check_encoding(application, encoding, encodings.get(application, PLAIN))
            except EncodingMismatch as error:
                yield _failure("applications", error)


def _hooks(fleet: Fleet) -> Iterator[Finding]:
    recorded, registered = fleet.hooks.recorded(), [hook.name for hook in fleet.hooks]
    if registered or recorded:
        names = ", ".join({**dict.fromkeys(recorded), **dict.fromkeys(registered)})
        yield Finding(name="hooks", level="ok", what=f"New tenants are prepared by {names}.")
    lacking = [name for name in recorded if name not in registered]
    if fleet.applications and lacking:
        what = f"{', '.join(lacking)} is recorded and not in the code, which therefore creates no tenants."
        yield Finding(name="hooks", level="failure", what=what, remedy="If it was removed for good: tenancy init")


def _reactions(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    slugs = {tenant.id: tenant.slug for tenant in every}
    for each in ReactionMonitor(fleet.registry, fleet.reactions).status():
        events = f" to {', '.join(each.events)}" if each.events else ""
        if fleet.applications and not each.is_registered:
            what = f"{each.reaction} is recorded and not in the code. {each.lag} changes wait for it."
            yield Finding(name="reactions", level="warning", what=what, remedy="Deploy its code, or ignore this.")
        elif not each.failures:
            waiting = f" {each.lag} changes wait." if each.lag else ""
            yield Finding(name="reactions", level="ok", what=f"{each.reaction} reacts{events}.{waiting}")
        for failure in each.failures:
            slug = slugs.get(failure.tenant_id)
            of = f"the purged tenant {failure.tenant_id}" if slug is None else repr(slug)
            what = (
                f"{each.reaction} fails at change {failure.number} of {of} ({failure.error}), "
                f"attempt {failure.attempts}."
            )
            remedy = (
                f"Fix the cause. To retry at once: tenancy runner retry {slug or failure.tenant_id} {each.reaction}"
            )
            yield Finding(name="reactions", level="warning", what=what, remedy=remedy, tenant=slug)


def _steps(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    half_done = [tenant for tenant in every if tenant.status in _HALF_DONE]
    if not half_done:
        yield Finding(name="steps", level="ok", what="No interrupted steps.")
    runs = {run.tenant_id: run for run in fleet.hooks.runs(half_done) if run.finished_at is None}
    for tenant in half_done:
        is_long = datetime.now(UTC) - tenant.changed_at > _LONG
        run = runs.get(tenant.id)
        since = f"{_HALF_DONE[tenant.status]} since {tenant.changed_at:%Y-%m-%d %H:%M:%S}Z"
        has_failed = run is not None and run.error is not None
        yield Finding(
            name="steps",
            level="failure" if is_long or has_failed else "warning",
            what=f"{tenant.slug!r} {since}{'' if run is None else f': {run}'}.",
            remedy="Fix the cause, then run: tenancy doctor --repair"
            if has_failed
            else "If the process that does it died: tenancy doctor --repair",
            tenant=tenant.slug,
        )


def _limits(every: Sequence[Tenant]) -> Iterator[Finding]:
    """Report metadata from before this version, or written past it, that is ignored."""
    for tenant in every:
        for fault, key, effect in (
            (weight_fault(tenant.metadata), "weight", "The runner uses the weight 1."),
            (quotas_fault(tenant.metadata), "quotas", "The tenant has no quotas."),
        ):
            if fault is None:
                continue
            what = f"{tenant.slug!r}: {fault}. {effect}"
            remedy = f"Fix or remove it: tenancy update {tenant.slug} --unset {key}"
            yield Finding(name="limits", level="warning", what=what, remedy=remedy, tenant=tenant.slug)


def _counted(number: int) -> str:
    return f"{number} tenant{'' if number == 1 else 's'}"


def _complete(every: Sequence[Tenant]) -> list[Tenant]:
    return [tenant for tenant in every if tenant.status not in _HALF_DONE]


def _tables(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    complete = _complete(every)
    faults = list(fleet.inventory.faults(complete, fleet.application_specs()))
    if not faults:
        ready = f"The tables of {_counted(len(complete))} are as expected."
        yield Finding(name="tables", level="ok", what=ready if complete else "There are no complete tenants yet.")
    more = [
        application_spec.application
        for application_spec in fleet.application_specs()
        if application_spec.creates_extra_tables
    ]
    if more:
        what = f"Tables that the code of {', '.join(more)} creates itself cannot be checked."
        yield Finding(name="tables", level="ok", what=what, remedy="Create missing ones: tenancy doctor --repair")
    for tenant, what in faults:
        remedy = "Create missing ones: tenancy doctor --repair"
        yield Finding(
            name="tables", level="failure", what=f"{tenant.slug!r}: {what}", remedy=remedy, tenant=tenant.slug
        )


def _drift(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    """Compare the tables that migrations create with those of a reference tenant at the same revision."""
    if not fleet.migrator.is_configured:
        return
    complete = _complete(every)
    try:
        drifts = list(fleet.migrator.reference().drift(complete))
    except Exception as error:  # noqa: BLE001 (revisions are the user's code)
        reason = str(error) if isinstance(error, TenancyError | PersistenceError) else type(error).__name__
        what = f"The tables of migrations cannot be examined: {reason.rstrip('.')}."
        remedy = "Fix the revisions. If this role may not create a schema, run doctor as one that may."
        yield Finding(name="drift", level="warning", what=what, remedy=remedy)
        return
    if not drifts:
        what = f"The tables of migrations of {_counted(len(complete))} are as their revisions create them."
        yield Finding(name="drift", level="ok", what=what)
    for each in drifts:
        slug = each.tenant.slug
        remedy = "Undo the change by hand, or make it a revision: tenancy migrations revision"
        yield Finding(
            name="drift", level="failure", what=f"{slug!r}: {each.table} {each.what}.", remedy=remedy, tenant=slug
        )


def _migrations(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    complete = _complete(every)
    older = list(_older_than_recorded(fleet, complete))
    for tenant, version in older:
        yield Finding(
            name="migrations",
            level="failure",
            what=f"{tenant.slug!r}: own tables of version {version}, and version {tenant.versions.tables} is recorded.",
            remedy="Record their version: tenancy doctor --repair. Then: tenancy migrate",
            tenant=tenant.slug,
        )
    behind = Migrate(fleet, {}).plan(complete)
    if behind:
        what = f"{_counted(len(behind))} to migrate, for example {behind[0].tenant.slug!r}: {behind[0].summary}."
        yield Finding(name="migrations", level="warning", what=what, remedy="Migrate: tenancy migrate")
    elif not older:
        yield Finding(name="migrations", level="ok", what=f"{_counted(len(complete))} at the version of the code.")


def _older_than_recorded(fleet: Fleet, complete: Sequence[Tenant]) -> Iterator[tuple[Tenant, int]]:
    for tenant, version in fleet.inventory.versions(complete, fleet.application_specs()):
        if version < tenant.versions.tables:
            yield tenant, version


class _Behind(NamedTuple):
    """A tenant's or the registry's sequence that is behind its table."""

    datastore: SQLAlchemyDatastore
    sequence: SequenceBehind
    tenant: str | None = None

    @property
    def owner(self) -> str:
        return "registry" if self.tenant is None else repr(self.tenant)


def _sequences_behind(fleet: Fleet, every: Sequence[Tenant]) -> list[_Behind]:
    inventory, registry = fleet.inventory, fleet.registry
    return [_Behind(registry.datastore, sequence) for sequence in registry.sequences_behind()] + [
        _Behind(fleet.shard.datastore, sequence, tenant.slug)
        for tenant, sequence in inventory.sequences_behind(_complete(every), fleet.application_specs())
    ]


def _sequences(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    behind = _sequences_behind(fleet, every)
    if not behind:
        what = f"The sequences of {_counted(len(_complete(every)))} and of the registry are ahead of their tables."
        yield Finding(name="sequences", level="ok", what=what)
    for each in behind:
        sequence = each.sequence
        what = f"{each.owner}: {sequence.name} is behind the last id of {sequence.table}. Events are refused."
        remedy = "Move it forward: tenancy doctor --repair"
        yield Finding(name="sequences", level="failure", what=what, remedy=remedy, tenant=each.tenant)


def _orphans(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    found = fleet.inventory.orphans(every, fleet.application_specs())
    if not found:
        yield Finding(name="orphans", level="ok", what="No orphaned tables.")
    for name in found:
        remedy = "Register it again: tenancy adopt SLUG --schema or --prefix. Or drop it manually."
        yield Finding(
            name="orphans",
            level="warning",
            what=f"{name} looks like tenant storage, but no registered tenant owns it.",
            remedy=remedy,
        )


def _due(fleet: Fleet) -> Iterator[Finding]:
    due = fleet.purging.due()
    if due:
        what = f"The grace period of {len(due)} deleted tenant{'s' if len(due) > 1 else ''} is over."
        yield Finding(name="due", level="warning", what=what, remedy="Purge: tenancy purge --due")
    else:
        yield Finding(name="due", level="ok", what="No deleted tenant is due to be purged.")


# -- repairing --


def repair(fleet: Fleet, *, actor: str | None = None) -> Iterator[Finding]:
    """Complete interrupted steps, create missing tables, and advance sequences that are behind; yield each repair, and
    each failed one as a failure.

    Orphans and tables of another shape stay as they are. A failure does not stop the repair of other tenants.
    Applications and views that create tables of their own are constructed once per tenant.
    """
    try:
        yield from _record_new_applications(fleet)
        every = fleet.registry.list()
    except (RegistryMissing, RegistryMismatch, EncodingMismatch) as error:
        yield _failure("registry", error)
        return
    yield from _repair_versions(fleet, every, actor)
    yield from _repair_sequences(fleet, every)  # first: the repairs below record registry events
    application_specs = fleet.application_specs()
    broken = {tenant.id for tenant, _ in fleet.inventory.faults(_complete(every), application_specs)}
    creates_extra_tables = any(application_spec.creates_extra_tables for application_spec in application_specs)
    try:
        for application_spec in application_specs:
            check_code(application_spec)
    except TenancyError as error:
        yield Finding(name="tables", level="failure", what=str(error))  # once, instead of for every tenant
        creates_extra_tables = False
    for tenant in every:
        is_whole = tenant.status not in _HALF_DONE and tenant.id not in broken
        if is_whole and not creates_extra_tables:
            continue
        done = {
            TenantStatus.PROVISIONING: Finding(name="steps", level="ok", what=f"{tenant.slug!r} is ready."),
            TenantStatus.PURGING: Finding(name="steps", level="ok", what=f"{tenant.slug!r} is purged."),
        }.get(tenant.status, Finding(name="tables", level="ok", what=f"{tenant.slug!r} has all its tables."))
        try:
            before = len(fleet.inventory.of_tenant(tenant, application_specs).relations) if is_whole else 0
            _repair_tenant(fleet, tenant, actor)
            if is_whole and len(fleet.inventory.of_tenant(tenant, application_specs).relations) <= before:
                continue
        except RegistryUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 (the code of applications and views runs here)
            done = replace(done, level="failure", what=f"{tenant.slug!r}: {error}")
        yield replace(done, tenant=tenant.slug)


def _record_new_applications(fleet: Fleet) -> Iterator[Finding]:
    new, lacking = fleet.provisioning.record_new_applications()
    if new and not lacking:
        yield Finding(name="applications", level="ok", what=f"Recorded: {', '.join(new)}.")
    elif new:
        what = f"Not recorded: {', '.join(new)}. The code lacks {', '.join(lacking)}."
        remedy = "If these were removed permanently, run: tenancy init"
        yield Finding(name="applications", level="failure", what=what, remedy=remedy)


def _repair_versions(fleet: Fleet, every: Sequence[Tenant], actor: str | None) -> Iterator[Finding]:
    for tenant, version in _older_than_recorded(fleet, _complete(every)):
        with fleet.registry.locked(tenant.id) as (session, current):
            for found in current:
                versions = replace(found.versions, tables=version)
                fleet.registry.change(session, [found], Action.MIGRATE, actor, versions=versions)
        what = f"{tenant.slug!r}: version {version} of its own tables is recorded."
        yield Finding(name="migrations", level="ok", what=what, tenant=tenant.slug)


def _repair_sequences(fleet: Fleet, every: Sequence[Tenant]) -> Iterator[Finding]:
    for each in _sequences_behind(fleet, every):
        what = f"{each.owner}: {each.sequence.name} was advanced to the last id of its table."
        done = Finding(name="sequences", level="ok", what=what, tenant=each.tenant)
        try:
            sequences.repair(each.datastore, each.sequence)
        except PersistenceError as error:
            done = replace(done, level="failure", what=f"{each.owner}: {error}")
        yield done


def _repair_tenant(fleet: Fleet, tenant: Tenant, actor: str | None) -> None:
    if tenant.status is TenantStatus.PROVISIONING:
        fleet.provisioning.complete([tenant], actor)
    elif tenant.status is TenantStatus.PURGING:
        with suppress(TenantNotFound):  # another process has finished it
            list(fleet.purging.purge([tenant], actor))  # by id: its slug may belong to another tenant now
    else:
        fleet.provisioning.create_missing(tenant)
