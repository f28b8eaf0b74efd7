"""Write the results as Markdown, as a chart, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.catalog import CONTESTANTS, NATIVE, OURS, OURS_SQLITE, UPSTREAM, Contestant, Scenario
from benchmarks.chart import draw
from benchmarks.results import Ratio, Results, Runs

_NONE: Final = "–"
_WHOLE_FROM: Final = 100  # Smaller numbers are shown with three digits.


def write(results: Results, path: Path) -> list[Path]:
    """Write `path` with the suffixes .md, .json and .svg, and return the three paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        ".md": markdown(results, path.name),
        ".json": json.dumps(results.to_json(), indent=1) + "\n",
        ".svg": draw(results, subtitle(results)),
    }
    written = []
    for suffix, text in texts.items():
        target = path.with_name(path.name + suffix)
        target.write_text(text)
        written.append(target)
    return written


def subtitle(results: Results) -> str:
    """Return one line about date, commit, databases and machine."""
    run, machine, databases = (results.facts.get(key, {}) for key in ("run", "machine", "databases"))
    parts = [
        run.get("started", "")[:10],
        f"commit {run['commit']}" if "commit" in run else "",
        f"PostgreSQL {databases['PostgreSQL']}" if "PostgreSQL" in databases else "",
        f"fsync {databases['fsync']}" if "fsync" in databases else "",
        f"{machine['cores']} cores" if "cores" in machine else "",
        f"median of {_rounds(results)} interleaved rounds",
    ]
    return " · ".join(filter(None, parts))


def _rounds(results: Results) -> str:
    """Return the number of rounds, as a range if it differs between scenarios."""
    counts = {len(runs.runs) for of_scenario in results.found.values() for runs in of_scenario.values() if runs.runs}
    return "no" if not counts else str(max(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def markdown(results: Results, name: str) -> str:
    """Return the report as Markdown; `name` is the chart's file name without its suffix."""
    return "\n".join(
        [
            f"# Benchmarks, {results.form} run",
            "",
            subtitle(results),
            "",
            "How to read this is in [docs/performance.md](../../docs/performance.md). Only ratios mean something on",
            "another machine, and only within one run.",
            "",
            f"![How many times as fast as upstream]({name}.svg)",
            "",
            *_failures(results),
            *_ratios(results, "postgresql"),
            *_ratios(results, "sqlite"),
            *_figures(results),
            *_facts(results),
        ]
    )


def line(results: Results, scenario: Scenario) -> str:
    """Return a scenario's results in one line."""
    parts = []
    for contestant in scenario.contestants():
        runs = results.of(scenario, contestant)
        if runs is not None:
            parts.append(f"{contestant.title} {number(runs.median)}")
        elif contestant.name in results.found[scenario.name]:
            parts.append(f"{contestant.title} FAILED")
    return f"{scenario.name} ({scenario.unit}): {' · '.join(parts) or 'no contestants'}"


def number(value: float | None) -> str:
    """Return a number with at least three digits, or a dash for None."""
    if value is None:
        return _NONE
    return f"{value:,.0f}" if abs(value) >= _WHOLE_FROM else f"{value:.3g}"


def _failures(results: Results) -> Iterator[str]:
    failures = results.failures()
    if failures:
        yield from ("## Failed", "")
        yield from (f"- {scenario.name}, {contestant.title}: {error}" for scenario, contestant, error in failures)
        yield ""


def _ratios(results: Results, database: str) -> Iterator[str]:
    """Yield the table of ratios for one database."""
    scenarios = [scenario for scenario in results.scenarios if scenario.database == database]
    if not scenarios:
        return
    ours: Sequence[Contestant] = OURS[::-1] if database == "postgresql" else (OURS_SQLITE,)
    columns = [f"{_short(one)} to {peer.name}" for peer in (UPSTREAM, NATIVE) for one in ours]
    columns += [f"{_short(one)} to the limit" for one in ours]
    yield f"## {'PostgreSQL' if database == 'postgresql' else 'SQLite'}: how many times as fast"
    yield ""
    yield _row(["scenario", "what", *columns, "the limit"])
    yield _row(["---", "---", *["---:"] * len(columns), "---"])
    for scenario in scenarios:
        cells = [_ratio(results.ratio(scenario, one, peer)) for peer in (UPSTREAM, NATIVE) for one in ours]
        if scenario.measured_by is not None:
            cells += [_ratio(results.ratio_to_own(scenario, one)) for one in ours]
            limit = f"its own {scenario.measured_by}"
        elif scenario.limit is not None:
            cells += [_ratio(results.ratio(scenario, one, CONTESTANTS[scenario.limit])) for one in ours]
            limit = CONTESTANTS[scenario.limit].title
        else:
            cells += [_NONE] * len(ours)
            limit = ""
        yield _row([scenario.name, scenario.title, *cells, limit])
    yield ""
    yield "In brackets: the worst and the best round."
    yield ""


def _figures(results: Results) -> Iterator[str]:
    """Yield the table of medians."""
    yield "## Figures"
    yield ""
    yield "p50 and p99 are latencies of single calls."
    yield ""
    yield _row(["scenario", "contestant", "median", "unit", "min – max", "rounds", "p50, ms", "p99, ms", "besides"])
    yield _row(["---", "---", "---:", "---", "---:", "---:", "---:", "---:", "---"])
    for scenario in results.scenarios:
        for contestant in scenario.contestants():
            runs = results.of(scenario, contestant)
            if runs is not None:
                yield _row(_figure(scenario, contestant, runs))
    yield ""


def _figure(scenario: Scenario, contestant: Contestant, runs: Runs) -> list[str]:
    besides = [f"{key} {number(value)}" for key, value in runs.extra().items()]
    return [
        scenario.name,
        contestant.title,
        number(runs.median),
        scenario.unit,
        f"{number(min(runs.values))} – {number(max(runs.values))}",
        str(len(runs.runs)),
        number(runs.median_of("p50_ms")),
        number(runs.median_of("p99_ms")),
        ", ".join([*besides, *filter(None, [runs.note])]),
    ]


def _facts(results: Results) -> Iterator[str]:
    """Yield the tables of settings and versions."""
    for title, facts in results.facts.items():
        yield f"## {title.capitalize()}"
        yield ""
        yield _row(["what", "value"])
        yield _row(["---", "---"])
        yield from (_row([key, value]) for key, value in facts.items())
        yield ""
    packages = dict.fromkeys(name for versions in results.versions.values() for name in versions)
    yield "## Versions"
    yield ""
    yield _row(["package", *results.versions])
    yield _row(["---"] * (len(results.versions) + 1))
    for package in packages:
        yield _row([package, *(versions.get(package, _NONE) for versions in results.versions.values())])
    yield ""


def _short(contestant: Contestant) -> str:
    return contestant.name.removeprefix("ours-") if contestant in OURS else "ours"


def _ratio(ratio: Ratio | None) -> str:
    if ratio is None:
        return _NONE
    spread = "" if ratio.low == ratio.high else f" ({number(ratio.low)} – {number(ratio.high)})"
    return f"**{number(ratio.median)}**{spread}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
