"""Long output of the command is written piece by piece, in the same form as short output."""

from __future__ import annotations

import json

import pytest

from tenancy.cli.output import show_json, show_json_list, show_long_table


@pytest.mark.parametrize("values", [[], [{"a": None}], [{"a": [1, "\n ü"]}, {"b": {}}]])
def test_a_list_of_json_is_written_like_its_whole(values: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    show_json(values)
    whole = capsys.readouterr().out
    show_json_list(iter(values))
    written = capsys.readouterr().out
    assert json.loads(written) == values
    assert written == whole


@pytest.mark.parametrize("number", [1, 500, 501, 1700])
def test_a_table_has_all_rows_and_one_header(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    show_long_table(("slug", "number"), ((f"tenant-{each}", each) for each in range(number)))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["slug", "number"], *([f"tenant-{n}", str(n)] for n in range(number))]
