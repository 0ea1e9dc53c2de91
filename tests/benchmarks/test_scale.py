"""The benchmark of sizes, with small ones."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from device_placement.benchmarks.scale import STEPS, Line, ScaleConfig, draw, main, median_s

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_times_every_step_of_every_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, figure = tmp_path / "scale.csv", tmp_path / "scale.png"
    files = {"out": str(table), "figure": str(figure)}
    config = ScaleConfig((20, 60), max_groups=20, repetitions=1, train_up_to=20, **files)
    assert main(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[-3:]] == [["20", "20"], ["60", "20"], ["60", "60"]]
    assert lines[-1].endswith("-")  # more groups than are trained with
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["step"] for row in rows} == set(STEPS)
    assert len(rows) == 4 + 1 + 2 + 3
    assert all(float(row["seconds"]) > 0 for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_small_graphs_are_on_both_lines_and_none_is_drawn_twice() -> None:
    sizes = {"coarsening": [(20, 20), (60, 20)], "features": [(20, 20), (60, 60), (60, 20)]}
    (axes,) = draw([Line(*size, step, 1.0) for step in sizes for size in sizes[step]]).axes
    assert [(line.get_label(), list(line.get_xdata())) for line in axes.lines] == [
        ("coarsening, few groups", [20, 60]),
        ("features, one group per op", [20, 60]),
        ("features, few groups", [20, 60]),
    ]


def test_the_first_call_does_not_count() -> None:
    calls: list[int] = []
    assert median_s(lambda: calls.append(1), 3) >= 0
    assert len(calls) == 4
