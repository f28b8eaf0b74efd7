"""Draw the results: each contestant's speed relative to the baseline, on a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from benchmarks.catalog import CONTESTANTS, NATIVE, OURS, OURS_SQLITE, UPSTREAM, Contestant, Scenario
from benchmarks.results import Ratio, Results

_WIDTH: Final = 1000
_LEFT: Final = 392
_RIGHT: Final = 910
_ROW: Final = 30
_GROUP: Final = 38
_TOP: Final = 118
_BOTTOM: Final = 64

_GROUPS: Final = (
    ("Write", ("W1", "W2", "W3", "W4", "P1", "W5")),
    ("Read and follow", ("R1", "R2", "R3", "R3c")),
    ("Start", ("T1", "M1")),
)
_LEGEND: Final = (
    ("psycopg", "ours, psycopg (3)"),
    ("psycopg2", "ours, psycopg2 or SQLite"),
    ("native", "eventsourcing's own module"),
    ("limit", "the limit: the same work without a recorder"),
)
_TICKS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

_STYLE: Final = """
  svg { font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
  .paper { fill: #ffffff; } .band { fill: #f4f6f8; } .text { fill: #1c2430; } .soft { fill: #66707d; }
  .title { font-size: 21px; font-weight: 650; } .group { font-size: 14px; font-weight: 650; }
  .name { font-weight: 600; } .value { font-weight: 650; text-anchor: end; }
  .grid { stroke: #dfe3e8; } .one { stroke: #66707d; stroke-width: 1.5; }
  .psycopg { fill: #0f62d6; } .psycopg2 { fill: #63a4f4; } .native { fill: #e8871e; }
  .stem { stroke: #0f62d6; stroke-opacity: .35; stroke-width: 3; stroke-linecap: round; }
  .spread { stroke: #0f62d6; stroke-width: 1.5; } .limit { stroke: #1c2430; stroke-width: 3; }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #11161d; } .band { fill: #182029; } .text { fill: #e8edf3; } .soft { fill: #98a4b3; }
    .grid { stroke: #2b3541; } .one { stroke: #98a4b3; } .limit { stroke: #e8edf3; }
    .psycopg { fill: #58a0ff; } .psycopg2 { fill: #2d63b0; } .native { fill: #f0a24a; }
    .stem, .spread { stroke: #58a0ff; }
  }
"""


@dataclass(frozen=True, slots=True)
class _Row:
    scenario: Scenario
    ratios: dict[str, Ratio]


def baseline_of(results: Results) -> Contestant | None:
    """Return the baseline: upstream, else native, else ours with psycopg2; None without results."""
    for contestant in (UPSTREAM, NATIVE, OURS[0]):
        if any(results.of(scenario, contestant) for scenario in results.scenarios):
            return contestant
    return None


def draw(results: Results, subtitle: str) -> str:
    """Return the chart as SVG. Scenarios without a baseline result are omitted."""
    baseline = baseline_of(results)
    groups = [] if baseline is None else [(title, rows) for title, rows in _rows(results, baseline) if rows]
    height = _TOP + sum(_GROUP + _ROW * len(rows) for _, rows in groups) + _BOTTOM
    low, high = _bounds([ratio for _, rows in groups for row in rows for ratio in row.ratios.values()])

    def x(value: float) -> float:
        share = math.log(min(max(value, low), high) / low) / math.log(high / low)
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    name = "no baseline" if baseline is None else baseline.title
    title = f"Times as fast as {name}"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        f'<text class="text title" x="28" y="40">{escape(title)}</text>',
        f'<text class="soft" x="28" y="62">{escape(subtitle)}</text>',
        *_legend(),
        f'<text class="soft" x="{_WIDTH - 28}" y="{_TOP + 25}" text-anchor="end">ours</text>',
    ]
    bottom = height - _BOTTOM + 8
    y = _TOP
    body: list[str] = []
    for group, rows in groups:
        body.append(f'<text class="text group" x="28" y="{y + 25}">{escape(group)}</text>')
        y += _GROUP
        for number, row in enumerate(rows):
            if number % 2 == 0:
                lines.append(f'<rect class="band" x="20" y="{y}" width="{_WIDTH - 40}" height="{_ROW}" rx="4"/>')
            body += _draw_row(row, y + _ROW / 2, x)
            y += _ROW
    for tick in (tick for tick in _TICKS if low <= tick <= high):
        kind = "one" if tick == 1 else "grid"
        lines.append(f'<line class="{kind}" x1="{x(tick)}" x2="{x(tick)}" y1="{_TOP + 4}" y2="{bottom}"/>')
        lines.append(f'<text class="soft" x="{x(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:g}&#215;</text>')
    note = "Right is faster; the axis is logarithmic. Lines through the dots: worst to best round."
    body.append(f'<text class="soft" x="28" y="{bottom + 42}">{note}</text>')
    return "\n".join([*lines, *body, "</svg>", ""])


def _rows(results: Results, baseline: Contestant) -> Iterator[tuple[str, list[_Row]]]:
    rows = []
    for scenario in results.scenarios:
        if results.of(scenario, baseline) is None:
            continue
        ratios = {}
        for contestant in scenario.contestants():
            ratio = results.ratio(scenario, contestant, baseline)
            if ratio is not None and contestant is not baseline:
                ratios[_series(contestant)] = ratio
        rows.append(_Row(scenario, ratios))
    for title, families in _GROUPS:
        yield title, [r for r in rows if r.scenario.database == "postgresql" and r.scenario.family in families]
    yield "SQLite", [row for row in rows if row.scenario.database == "sqlite"]


def _series(contestant: Contestant) -> str:
    if contestant.kind == "limit":
        return "limit"
    if contestant in (*OURS, OURS_SQLITE):
        return contestant.driver
    return "native" if contestant is CONTESTANTS["native"] else "upstream"


def _bounds(ratios: Sequence[Ratio]) -> tuple[float, float]:
    """Return the ends of the axis: ticks that enclose all values."""
    low = min([ratio.low for ratio in ratios], default=1.0)
    high = max([ratio.high for ratio in ratios], default=1.0)
    return (
        max([tick for tick in _TICKS if tick <= min(low, 0.7)], default=_TICKS[0]),
        min([tick for tick in _TICKS if tick >= max(high, 2.0)], default=_TICKS[-1]),
    )


def _legend() -> Iterator[str]:
    left = 28.0
    for series, text in _LEGEND:
        yield _mark(series, left + 6, 88)
        yield f'<text class="text" x="{left + 20}" y="92.5">{escape(text)}</text>'
        left += 50 + 6.6 * len(text)


def _mark(series: str, x: float, y: float) -> str:
    if series == "limit":
        return f'<line class="limit" x1="{x}" x2="{x}" y1="{y - 9}" y2="{y + 9}"/>'
    if series == "native":
        return f'<rect class="native" x="{x - 5}" y="{y - 5}" width="10" height="10" transform="rotate(45 {x} {y})"/>'
    return f'<circle class="{series}" cx="{x}" cy="{y}" r="6.5"/>'


def _draw_row(row: _Row, y: float, x: Callable[[float], float]) -> Iterator[str]:
    scenario = row.scenario
    yield (
        f'<text x="28" y="{y + 4.5}"><tspan class="text name">{escape(scenario.name.removeprefix("sqlite:"))}</tspan>'
        f'<tspan class="soft" x="112">{escape(scenario.title)}</tspan></text>'
    )
    ours = [row.ratios[name] for name in ("psycopg", "psycopg2") if name in row.ratios]
    if ours:
        yield f'<line class="stem" x1="{x(1)}" x2="{x(ours[0].median)}" y1="{y}" y2="{y}"/>'
    for ratio in ours:
        yield f'<line class="spread" x1="{x(ratio.low)}" x2="{x(ratio.high)}" y1="{y}" y2="{y}"/>'
    for series in ("limit", "native", "psycopg2", "psycopg"):
        if series in row.ratios:
            yield _mark(series, x(row.ratios[series].median), y)
    if ours:
        yield f'<text class="text value" x="{_WIDTH - 28}" y="{y + 4.5}">{ours[0].median:.3g}&#215;</text>'
