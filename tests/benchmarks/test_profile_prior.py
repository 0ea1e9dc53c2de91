"""The study of a profile as the prior: a line for each kind, and what it counts."""

from __future__ import annotations

from typing import Any

import pytest

from device_placement.benchmarks import profile_prior
from device_placement.benchmarks.profile_prior import ProfilePriorConfig, main
from device_placement.benchmarks.suite.suites import MEASURED, Problem
from problems import TWO_CPUS


def test_each_problem_has_a_line_for_each_kind_of_prior(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems: Any = {
        "small": Problem("diamond", devices=TWO_CPUS, evaluator=MEASURED),
        "absent": Problem("diamond", devices="CPU,GPU.7", evaluator=MEASURED),
    }
    monkeypatch.setattr(profile_prior, "problems_of", lambda _: problems)
    config = ProfilePriorConfig(("local",), budget=7, placements=4, seeds=1, max_samples=2)
    assert main(config) in (0, 1)
    said = capsys.readouterr()
    heading, *lines = said.out.splitlines()
    assert heading.split()[0] == "problem"
    assert [line.split()[:2] for line in lines] == [["small", way] for way in profile_prior.WAYS]
    assert "absent: Unknown device 'GPU.7'" in said.err
