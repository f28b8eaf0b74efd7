"""Draw the results: each contestant's speed relative to the baseline, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.catalog import CONTESTANTS, NATIVE, OURS, OURS_SQLITE, UPSTREAM, Contestant, Scenario
from benchmarks.results import Ratio, Results

_GROUPS: Final = (
    ("Write", ("W1", "W2", "W3", "W4", "P1", "W5")),
    ("Read and follow", ("R1", "R2", "R3", "R3c")),
    ("Start", ("T1", "M1")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    label: str
    marker: str
    color: str
    size: float = 8


# In the order in which they are drawn, the most important one last.
_SERIES: Final = {
    "limit": _Series(label="the limit: the same work without a recorder", marker="|", color="#1c2430", size=16),
    "native": _Series(label="eventsourcing's own module", marker="D", color="#e8871e", size=7),
    "psycopg2": _Series(label="ours, psycopg2 or SQLite", marker="o", color="#63a4f4"),
    "psycopg": _Series(label="ours, psycopg (3)", marker="o", color="#0f62d6"),
}
_SOFT: Final = "#66707d"
# Text as text, and the same file for the same results on every machine.
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "benchmarks",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # matplotlib brings the first one; the second one is as wide
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
}
# Matplotlib has one theme for a file: turned around, dark becomes bright, and the hue remains.
_DARK: Final = "@media (prefers-color-scheme: dark) { svg { filter: invert(0.93) hue-rotate(180deg); } }"


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
    lines: list[str | _Row] = []
    for title, rows in () if baseline is None else _rows(results, baseline):
        lines += [title, *rows] if rows else []
    with rc_context(_STYLE):
        figure = Figure(figsize=(11, 2 + 0.32 * len(lines)), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.axvline(1, color=_SOFT, linewidth=1.5, zorder=1)
        for y, line in enumerate(lines):
            if isinstance(line, _Row):
                _draw_row(axes, y, line)
        _label(axes, lines)
        title = f"Times as fast as {'no baseline' if baseline is None else baseline.title}"
        figure.suptitle(title, fontsize=16, fontweight="bold")
        axes.set_title(subtitle, loc="right", fontsize=9, color=_SOFT)
        note = "Right is faster; the axis is logarithmic. Lines through the dots: worst to best round."
        axes.set_xlabel(note, color=_SOFT)
        handles = [_mark(axes, name, [], [], label=series.label) for name, series in reversed(_SERIES.items())]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=9)
        file = StringIO()
        figure.savefig(file, format="svg", metadata={"Title": title, "Creator": None, "Date": None})
    return file.getvalue().replace("</style>", f"{_DARK}</style>", 1)


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


def _label(axes: Axes, lines: Sequence[str | _Row]) -> None:
    """Name the scenarios and their groups, on a vertical axis that runs downwards, and the values of the other axis."""
    texts = [
        line if isinstance(line, str) else f"{line.scenario.name.removeprefix('sqlite:')}: {line.scenario.title}"
        for line in lines
    ]
    axes.set_yticks(range(len(lines)), labels=texts)
    axes.set_ylim(max(len(lines), 1) - 0.5, -0.5)  # without lines, when every run has failed
    axes.tick_params(axis="y", length=0)
    for tick, line in zip(axes.get_yticklabels(), lines, strict=True):
        tick.set_fontweight("bold" if isinstance(line, str) else "normal")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}\N{MULTIPLICATION SIGN}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", color="#dfe3e8")


def _draw_row(axes: Axes, y: int, row: _Row) -> None:
    ours = [row.ratios[name] for name in ("psycopg", "psycopg2") if name in row.ratios]
    color = _SERIES["psycopg"].color
    for ratio in ours:
        axes.hlines(y, ratio.low, ratio.high, color=color, linewidth=1.5, zorder=2)
    for name in _SERIES:
        if name in row.ratios:
            _mark(axes, name, [row.ratios[name].median], [y])
    if ours:
        axes.hlines(y, 1, ours[0].median, color=color, alpha=0.35, linewidth=3, zorder=1)
        value = f"{ours[0].median:.3g}\N{MULTIPLICATION SIGN}"
        axes.text(1.01, y, value, transform=axes.get_yaxis_transform(), fontweight="bold", va="center")


def _mark(axes: Axes, name: str, x: Sequence[float], y: Sequence[float], label: str | None = None) -> Line2D:
    series = _SERIES[name]
    (line,) = axes.plot(
        x, y, series.marker, color=series.color, markersize=series.size, markeredgewidth=2, label=label, zorder=3
    )
    return line
