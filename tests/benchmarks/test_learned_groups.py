"""The benchmark that counts learned groups, with tiny budgets."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import cast

import pytest

from device_placement.benchmarks.learned_groups import LearnedGroupsConfig, Part, draw, main, row_of
from device_placement.benchmarks.suite.suites import SUITES, Problem, Suite
from device_placement.envs import DevicePlacementError

TINY = Suite("one small problem", {"diamond on paper": Problem("diamond", "paper")}, budget=4)


def part(fewest: int, most: int, seed: int = 0) -> Part:
    return Part("hsdag", "diamond", seed, 4, 20, (fewest + most) / 2, fewest, most)


@pytest.fixture(autouse=True)
def tiny_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast(dict[str, Suite], SUITES), "tiny", TINY)


def test_it_counts_draws_and_writes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table, figure = tmp_path / "groups.csv", tmp_path / "groups.png"
    config = LearnedGroupsConfig(suite="tiny", budget=4, out=str(table), figure=str(figure))
    assert main(config) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "diamond" in line] == ["hsdag", "hsdag_ppo"]
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["preset"], row["seed"]) for row in rows} == {
        ("hsdag", "0"), ("hsdag", "1"), ("hsdag_ppo", "0"), ("hsdag_ppo", "1")
    }  # fmt: skip
    assert all(1 <= int(row["fewest"]) <= float(row["mean"]) <= int(row["most"]) for row in rows)
    assert all(int(row["most"]) <= int(row["groups"]) for row in rows)
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_a_row_says_whether_a_training_stayed_at_one_group() -> None:
    apart, together = part(2, 4), part(1, 1, seed=1)
    assert row_of([[apart] * 20])[-1] == "0 of 1"
    assert row_of([[apart] * 20, [apart] * 19 + [together]])[-1] == "1 of 2"
    assert row_of([[apart] * 10 + [together] * 10])[3:5] == ("3.0 (2)", "1.0 (1)")


def test_other_presets_are_refused() -> None:
    with pytest.raises(DevicePlacementError, match="hsdag_ppo"):
        main(LearnedGroupsConfig(presets=("nodewise_ppo",), suite="tiny", budget=4, seeds=1))


def test_without_matplotlib_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(DevicePlacementError, match="pip install"):
        draw([[part(1, 2)]], str(tmp_path / "groups.png"))
