"""Compare the applications of the code with the recorded ones, and record new ones."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import TYPE_CHECKING

from tenancy.errors import EncodingMismatch
from tenancy.model.application_spec import encodings_of
from tenancy.model.encodings import PLAIN, check_encoding
from tenancy.operations.doctor.finding import Finding, Level, failure

if TYPE_CHECKING:
    from tenancy.fleet import Fleet

__all__ = ["check", "record"]


def check(fleet: Fleet) -> Iterator[Finding]:
    """Yield how the applications of the code differ from the recorded ones."""
    recorded = {each["application"]: each for each in fleet.registry.fleet_settings().get("applications", [])}
    if not recorded and not fleet.applications:
        remedy = "Record them: tenancy --app module:tenants init"
        yield Finding(name="applications", level="failure", what="No application is recorded.", remedy=remedy)
        return
    if not fleet.applications:
        yield Finding(name="applications", level="ok", what=f"Recorded: {', '.join(recorded)}.")
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
            what, remedy = "is recorded and not in the code", "If it was removed permanently: tenancy init"
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
                yield failure("applications", error)


def record(fleet: Fleet) -> Iterator[Finding]:
    """Record applications that only the code has, unless the code lacks others; yield what was done."""
    new, lacking = fleet.provisioning.record_new_applications()
    if new and not lacking:
        yield Finding(name="applications", level="ok", what=f"Recorded: {', '.join(new)}.")
    elif new:
        what = f"Not recorded: {', '.join(new)}. The code lacks {', '.join(lacking)}."
        remedy = "If these were removed permanently, run: tenancy init"
        yield Finding(name="applications", level="failure", what=what, remedy=remedy)
