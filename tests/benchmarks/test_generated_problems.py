from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from device_placement.benchmarks.generated_problems import (
    GeneratedProblemsConfig,
    Line,
    best_shares,
    main,
    survey,
)
from device_placement.envs import generate_problem

LINE = survey(3, patience=1, annealed=30)


def test_a_survey_describes_the_problem_and_finds_no_worse_than_its_singles() -> None:
    evaluator = generate_problem(LINE.seed)
    assert (LINE.groups, LINE.devices) == (evaluator.coarse.num_groups, len(evaluator.devices))
    assert LINE.schedule == evaluator.schedule
    assert 1 <= LINE.width <= LINE.groups
    assert 0 < LINE.best_s <= min(LINE.single_s, LINE.heft_s)
    again = survey(3, patience=1, annealed=30)
    timed = {"seconds": 0.0, "features_s": 0.0}
    assert dataclasses.replace(again, **timed) == dataclasses.replace(LINE, **timed)


def test_a_gap_is_that_of_the_best_single() -> None:
    line = dataclasses.replace(LINE, single_s=3.0, best_s=2.0, heft_s=2.5)
    alone = dataclasses.replace(line, best_s=3.0, heft_s=math.inf)
    assert (line.gap, line.single_is_best) == (0.5, False)
    assert (alone.gap, alone.single_is_best) == (0.0, True)
    row = best_shares([line, line, line, alone], "some")
    assert row[:3] == ("some", "4", "25.0%")
    assert row[5] == "50"  # the median gap
    assert row[8:] == ("25", "75%")


def test_the_study_prints_sizes_gaps_and_times(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lines.csv"
    config = GeneratedProblemsConfig(problems=8, patience=1, annealed=30, out=str(out))
    assert main(config) in (0, 1)  # the time to generate is that of this machine
    text = capsys.readouterr().out
    for words in ("edges per group", "with a memory limit", "A single is the best known in"):
        assert words in text
    rows = [line.split() for line in text.splitlines() if line.startswith("all ")]
    assert rows[0][1] == "8"
    assert len(out.read_text().splitlines()) == 9
    assert out.read_text().splitlines()[0].split(",") == [
        field.name for field in dataclasses.fields(Line)
    ]
