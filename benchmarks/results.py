"""Results: runs, their medians, and the ratios between contestants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

from benchmarks.catalog import CONTESTANTS, SCENARIOS, Contestant, Scenario

_SCENARIOS: Final = {scenario.name: scenario for scenario in SCENARIOS}

_KEPT: Final = ("value", "work", "seconds", "calls", "p50_ms", "p99_ms", "extra", "note")


@dataclass(slots=True)
class Runs:
    """One contestant's runs in one scenario, or its error."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None

    @property
    def values(self) -> list[float]:
        """The value of each round."""
        return [run["value"] for run in self.runs]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return median(self.values)

    def median_of(self, key: str) -> float | None:
        """Return the median of another figure, such as `p99_ms`, or None if it was not measured."""
        values = [run[key] for run in self.runs if run[key] is not None]
        return median(values) if values else None

    def extra(self) -> dict[str, float]:
        """Return the medians of the scenario's extra figures."""
        return {key: median(run["extra"][key] for run in self.runs) for key in self.runs[0]["extra"]}

    @property
    def note(self) -> str:
        """The notes of the runs, or ""."""
        return "; ".join(dict.fromkeys(run["note"] for run in self.runs if run["note"]))


@dataclass(frozen=True, slots=True)
class Ratio:
    """The speed of one contestant relative to another: median and spread of the rounds."""

    median: float
    low: float
    high: float


@dataclass(slots=True)
class Results:
    """All results of a benchmark run; `facts` describe machine, databases and amounts."""

    form: str
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    found: dict[str, dict[str, Runs]] = field(default_factory=dict)

    @property
    def scenarios(self) -> list[Scenario]:
        """The scenarios of the run."""
        return [_SCENARIOS[name] for name in self.found]

    @property
    def versions(self) -> dict[str, dict[str, str]]:
        """The package versions in each virtual environment."""
        found: dict[str, dict[str, str]] = {}
        for of_scenario in self.found.values():
            for name, runs in of_scenario.items():
                for run in runs.runs[:1]:
                    found.setdefault(CONTESTANTS[name].home, run["versions"])
        return found

    def of(self, scenario: Scenario, contestant: Contestant) -> Runs | None:
        """Return a contestant's runs, or None if it has none; :meth:`failures` returns errors."""
        runs = self.found.get(scenario.name, {}).get(contestant.name)
        return runs if runs is not None and runs.error is None and runs.runs else None

    def failures(self) -> list[tuple[Scenario, Contestant, str]]:
        """Return (scenario, contestant, error) of each failure."""
        return [
            (_SCENARIOS[scenario], CONTESTANTS[contestant], runs.error)
            for scenario, of_scenario in self.found.items()
            for contestant, runs in of_scenario.items()
            if runs.error is not None
        ]

    def ratio(self, scenario: Scenario, contestant: Contestant, other: Contestant) -> Ratio | None:
        """Return the first contestant's speed relative to the second, round by round; None unless both ran."""
        runs, others = self.of(scenario, contestant), self.of(scenario, other)
        if runs is None or others is None:
            return None
        return _ratio(runs.values, others.values, more_is_better=scenario.more_is_better)

    def ratio_to_own(self, scenario: Scenario, contestant: Contestant) -> Ratio | None:
        """Return the ratio to the contestant's own result in the scenario `measured_by`."""
        if scenario.measured_by is None:
            return None
        runs, others = self.of(scenario, contestant), self.of(_SCENARIOS[scenario.measured_by], contestant)
        if runs is None or others is None:
            return None
        return _ratio(runs.values, [others.median] * len(runs.values), more_is_better=True)

    def to_json(self) -> dict[str, Any]:
        """Return all results, including each run."""
        return {
            "form": self.form,
            **self.facts,
            "versions": self.versions,
            "scenarios": {
                scenario.name: {
                    "title": scenario.title,
                    "unit": scenario.unit,
                    "contestants": {
                        name: {"error": runs.error} if runs.error is not None else self._summary(runs)
                        for name, runs in self.found[scenario.name].items()
                    },
                }
                for scenario in self.scenarios
            },
        }

    @staticmethod
    def _summary(runs: Runs) -> dict[str, Any]:
        return {
            "median": runs.median,
            "low": min(runs.values),
            "high": max(runs.values),
            "p50_ms": runs.median_of("p50_ms"),
            "p99_ms": runs.median_of("p99_ms"),
            "extra": runs.extra(),
            "runs": [{key: run[key] for key in _KEPT} for run in runs.runs],
        }


def _ratio(values: Sequence[float], others: Sequence[float], *, more_is_better: bool) -> Ratio:
    pairs = zip(values, others, strict=True)
    ratios = [a / b if more_is_better else b / a for a, b in pairs]
    return Ratio(median(ratios), min(ratios), max(ratios))
