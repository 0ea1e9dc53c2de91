"""CSV files that somebody who writes them may not finish."""

from __future__ import annotations

from pathlib import Path

from device_placement.benchmarks.suite.results import append_lines, read_lines, write_lines

TRICKY = 'a "quote", a comma,\na line and a separator\u2028of lines'


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = str(tmp_path / "lines.csv")
    assert read_lines(path) == []
    append_lines(path, ["name", "number"], [(TRICKY, 1)])
    append_lines(path, ["name", "number"], [("", 2)])
    assert read_lines(path) == [{"name": TRICKY, "number": "1"}, {"name": "", "number": "2"}]
    write_lines(path, ["name"], [["second"]])
    assert read_lines(path) == [{"name": "second"}]


def test_half_a_line_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "lines.csv"
    path.write_text("name,number\nwhole,1\nhal", encoding="utf-8")
    assert read_lines(str(path)) == [{"name": "whole", "number": "1"}]
    append_lines(str(path), ["name", "number"], [("next", 2)])
    assert path.read_text(encoding="utf-8") == "name,number\nwhole,1\nnext,2\n"
