"""Reports of the benchmarks: ratios, tables, charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET

import pytest

from benchmarks import report
from benchmarks.catalog import CONTESTANTS, NATIVE, OURS, SCENARIOS, UPSTREAM
from benchmarks.catalog import find_scenarios as find
from benchmarks.chart import draw
from benchmarks.measurement import quantile
from benchmarks.results import Results, Runs


@pytest.mark.parametrize(
    ("count", "p50", "p99"), [(1, 1, 1), (2, 1, 2), (100, 50, 99), (101, 51, 100), (1000, 500, 990)]
)
def test_a_quantile_is_one_of_the_latencies(count: int, p50: float, p99: float) -> None:
    latencies = [milliseconds / 1000 for milliseconds in range(count, 0, -1)]

    assert quantile(latencies, 0.5) == pytest.approx(p50)
    assert quantile(latencies, 0.99) == pytest.approx(p99)


def results_of(values: Mapping[str, Mapping[str, Sequence[float]]]) -> Results:
    results = Results("test")
    for scenario, of_scenario in values.items():
        results.found[scenario] = {
            name: Runs(
                [
                    {
                        "value": value,
                        "work": 1,
                        "seconds": 1,
                        "calls": 1,
                        "p50_ms": 1.0,
                        "p99_ms": 2.0,
                        "extra": {},
                        "note": "",
                        "versions": {},
                    }
                    for value in of_contestant
                ]
            )
            for name, of_contestant in of_scenario.items()
        }
    return results


def chart_texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314 (our own)
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_ratio_is_taken_round_by_round_and_more_is_faster_whatever_the_unit() -> None:
    # The ratio of the medians would be 20 / 10; those of the rounds are 1, 2 and 4.
    results = results_of(
        {
            "W1": {"upstream": [20, 10, 5], "ours-psycopg": [20, 20, 20]},
            "R3": {"upstream": [20, 20, 20], "ours-psycopg": [5, 5, 10]},
        }
    )
    psycopg = CONTESTANTS["ours-psycopg"]

    rate = results.ratio(find(["W1"])[0], psycopg, UPSTREAM)
    time = results.ratio(find(["R3"])[0], psycopg, UPSTREAM)

    assert rate is not None
    assert (rate.median, rate.low, rate.high) == (2, 1, 4)
    assert time is not None
    assert (time.median, time.low, time.high) == (4, 2, 4)
    assert results.ratio(find(["W1"])[0], psycopg, NATIVE) is None


def test_the_fleet_is_compared_with_its_own_threads_on_few_applications() -> None:
    results = results_of({"W4:16": {OURS[0].name: [100, 200, 300]}, "fleet": {OURS[0].name: [100, 150, 160]}})

    table = report.markdown(results, "x")

    assert "**0.75** (0.5 \N{EN DASH} 0.8)" in table
    assert "its own W4:16" in table


def test_the_chart_shows_every_contestant_in_every_scenario_and_is_well_formed() -> None:
    everybody = {s.name: {c.name: [1.0, 2.0, 4.0] for c in s.contestants()} for s in SCENARIOS}

    chart = draw(results_of(everybody), "<&>")

    texts = chart_texts(chart)
    assert f"Times as fast as {UPSTREAM.title}" in texts
    assert "<&>" in texts
    for scenario in SCENARIOS:
        shown = f"{scenario.name.removeprefix('sqlite:')}: {scenario.title}"
        assert (shown in texts) is not scenario.only_ours
    assert draw(results_of(everybody), "<&>") == chart
    assert "prefers-color-scheme: dark" in chart


def test_a_name_matches_all_scenarios_with_that_prefix() -> None:
    assert [s.name for s in find(["W2", "W1"])] == ["W1", "W2:10", "W2:100", "W2:1000"]
    assert [s.name for s in find(["R3"])] == ["R3"]
    assert {s.database for s in find(["sqlite"])} == {"sqlite"}
