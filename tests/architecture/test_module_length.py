"""A module has one responsibility. Above 350 lines, check whether it still does."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = [ROOT / "eventsourcing_sqlalchemy", ROOT / "tenancy"]
ASK_AT: Final = 350
# Module -> why it is one thing. Split a module only if the new part has a noun of its own.
LONG: Final[dict[str, str]] = {
    "tenancy/operations/jobs/store.py": "the records of jobs: the statements on two tables, which belong together",
    "tenancy/registry/cache.py": "one cache: what it keeps, when it asks the registry, what it refuses",
    "tenancy/runner/runner.py": "the runner's public interface, which starts, stops and inspects its parts",
    "tenancy/tenancy.py": "the facade: users' calls, a few lines per method",
}


def lengths() -> dict[str, int]:
    return {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for package in PACKAGES
        for path in package.rglob("*.py")
    }


def test_long_modules_are_listed_with_a_reason() -> None:
    long = {module: lines for module, lines in lengths().items() if lines > ASK_AT}
    assert sorted(long) == sorted(LONG), "split by responsibility, or list the module above with a reason"
    assert all(len(reason) > 20 for reason in LONG.values())
