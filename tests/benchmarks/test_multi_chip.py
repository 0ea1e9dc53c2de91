"""The study of many chips: its tables and targets, from rows written by hand."""

from __future__ import annotations

import math

import pytest

from device_placement.agents.placers.exact.pipeline_bounds import load_bound
from device_placement.benchmarks import multi_chip
from device_placement.benchmarks.multi_chip import (
    MultiChipConfig,
    bound_s,
    print_evaluations,
    print_repairs,
    print_throughput,
)
from device_placement.benchmarks.suite.problems import open_problem, problems_of
from device_placement.benchmarks.suite.results import RunRow
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs.repair.repairer import Repairer
from device_placement.envs.simulation.simulator import as_simulated

NAME = "bert_base on 4 chips"
SMALL = {
    NAME: Problem("diamond", "mcm", chips=4, room=3.0, schedule="pipelined"),
    "diamond on 36 chips": Problem("diamond", "mcm", chips=36, room=36.0, schedule="pipelined"),
}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_chip, "problems_of", lambda _: SMALL)
    monkeypatch.setattr(multi_chip, "MANY_GROUPS", 4)


def row(placer: str, seed: int, time_s: float, at: int) -> RunRow:
    """A run that finds something slow first, and its best after some evaluations."""
    return RunRow(
        *("mcm", NAME, placer, seed),
        budget=400,
        session=0,
        devices="NPU.0,NPU.1,NPU.2,NPU.3",
        time_s=time_s,
        improvements=((5, 9.0), (at, time_s)),
        assignment=(0, 1, 2, 3),
    )


@pytest.mark.usefixtures("_small")
def test_repairs_are_counted_and_timed(capsys: pytest.CaptureFixture[str]) -> None:
    print_repairs(MultiChipConfig(placements=200, repairs=3))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:7] == [*NAME.split(), "4", lines[1].split()[5], "100%"]
    assert any(line.startswith("fix of random placements") for line in lines)


@pytest.mark.usefixtures("_small")
def test_gains_and_evaluations_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row("random", seed, 2.0, 100) for seed in range(3)]
    rows += [row("annealing", seed, 1.5, 100) for seed in range(3)]
    rows += [row("ppo_fix", seed, 1.0, 205) for seed in range(3)]
    rows += [row("pretrained", seed, 1.0, 15) for seed in range(3)]
    assert print_throughput(rows, 1.0)
    text = capsys.readouterr().out
    assert "+100.0 %" in text
    assert "over random on BERT-base, mean of 1 numbers of chips: +100.0%, reaches" in text
    assert "over annealing on BERT-base, mean of 1 numbers of chips: +50.0%, reaches" in text
    assert print_evaluations(rows)
    assert "20.0x" in capsys.readouterr().out
    nothing = [one for one in rows if one.placer != "ppo_fix"]
    nothing += [row("ppo_fix", seed, 1.0, 5) for seed in range(3)]
    assert not print_evaluations(nothing)
    assert "nothing learned" in capsys.readouterr().out
    slow = [one for one in rows if one.placer != "pretrained"]
    slow += [row("pretrained", seed, 1.1, 14) for seed in range(3)]
    assert not print_evaluations(slow)
    text = capsys.readouterr().out
    assert "never" in text
    assert "MISSES 20" in text


def test_no_placement_is_below_the_bound() -> None:
    evaluator = as_simulated(open_problem(SMALL[NAME]), "")
    balanced = Repairer(evaluator.costs).balanced().assignment
    found_s = evaluator.evaluate(balanced.tolist()).time_s
    assert 0 < load_bound(evaluator.costs) <= bound_s(evaluator, 5.0) <= found_s


def test_the_suite_can_be_placed_on_the_fewest_chips() -> None:
    problems = problems_of("mcm")
    assert {problem.chips for problem in problems.values()} == {4, 8, 16, 36}
    for name, problem in problems.items():
        if problem.chips == 4 and "generated" in name:
            evaluator = as_simulated(open_problem(problem), "")
            assert Repairer(evaluator.costs, evaluator.coarse.supported).balanced().found
            assert math.isfinite(load_bound(evaluator.costs))
