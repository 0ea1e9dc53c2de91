"""Training and random search: what a run leaves, and how it goes on."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.search import RandomConfig, search_randomly
from device_placement.agents.commands.train import TrainConfig, train
from device_placement.agents.placers.baselines import random_assignment
from device_placement.agents.runs.resume import resume_config
from device_placement.agents.runs.summary import format_table, make_rows
from device_placement.envs import DevicePlacementError, Evaluation, Placement
from platforms import needs_signals
from problems import TWO_CPUS
from runs import MEASURING, evaluator_of, interrupt, lines
from scripted import ScriptedEvaluator, twelve_groups_evaluator

COMMAND = [sys.executable, "-m", "device_placement.agents.cli"]
SIMULATED = {"model": "resnet50", "devices": "CPU,GPU", "evaluator": "simulator"}


def test_random_placements_keep_to_what_is_supported() -> None:
    coarse = twelve_groups_evaluator().coarse
    coarse.supported[3] = [False, True]
    generator = np.random.default_rng(0)
    drawn = np.array([random_assignment(coarse, generator) for _ in range(200)])
    assert (drawn[:, 3] == 1).all()
    assert 0.3 < np.delete(drawn, 3, axis=1).mean() < 0.7


def test_random_search_leaves_a_whole_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert search_randomly(RandomConfig(**SIMULATED, budget=20, out=str(out))) == 0
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "evaluations.jsonl",
        "best_placement.json",
        "result.json",
    }
    text = capsys.readouterr().out
    assert "all on CPU" in text
    assert "best found" in text
    result = json.loads((out / "result.json").read_text())
    assert result["evaluated"]["distinct"] == 20
    times = {row["name"]: row["time_s"] for row in result["rows"]}
    assert times[result["result"]] == min(times.values())
    assert Placement.load(out / "best_placement.json").model_name == "resnet50"
    with pytest.raises(DevicePlacementError, match="exists already; nothing was changed"):
        search_randomly(RandomConfig(**SIMULATED, budget=20, out=str(out)))
    assert json.loads((out / "result.json").read_text()) == result


@pytest.mark.parametrize(
    ("preset", "formulation"),
    [("ppo", "assign"), ("a2c", "refine"), ("maskable_ppo", "construct")],
)
def test_training_ends_with_a_table_and_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: str, formulation: str
) -> None:
    out = tmp_path / "run"
    config = TrainConfig(
        **SIMULATED, preset=preset, formulation=formulation, budget=20, max_groups=8, out=str(out)
    )
    assert train(config) == 0
    assert "trained policy, greedy" in capsys.readouterr().out
    first = lines(out)
    assert len(first) <= 20
    assert list((out / "tensorboard").rglob("events*"))
    assert train(resume_config(TrainConfig, str(out), budget=30)) == 0
    second = lines(out)
    assert second[: len(first)] == first
    assert len({tuple(line["assignment"]) for line in second}) == len(second) <= 30
    best = min(line["evaluation"]["time_s"] for line in second)
    result = json.loads((out / "result.json").read_text())
    times = {row["name"]: row["time_s"] for row in result["rows"]}
    assert times["best found"] == pytest.approx(best)
    assert times[result["result"]] == min(times.values())


def test_resuming_needs_a_run_and_its_own_settings(tmp_path: Path) -> None:
    with pytest.raises(DevicePlacementError, match="--resume needs --out"):
        train(TrainConfig(resume=True))
    out = tmp_path / "run"
    search_randomly(RandomConfig(**SIMULATED, budget=5, out=str(out)))
    with pytest.raises(DevicePlacementError, match="has model='resnet50', not 'diamond'"):
        search_randomly(replace(resume_config(RandomConfig, str(out)), model="diamond"))
    with pytest.raises(DevicePlacementError, match="made by another command"):
        train(TrainConfig(out=str(out), resume=True))
    assert search_randomly(resume_config(RandomConfig, str(out), budget=8)) == 0
    assert len(lines(out)) == 8
    path = out / "config.json"
    content = json.loads(path.read_text())
    assert content["settings"]["budget"] == 8
    path.write_text(json.dumps({**content, "model_hash": "another"}))
    with pytest.raises(DevicePlacementError, match="model with the hash another"):
        search_randomly(RandomConfig(**SIMULATED, budget=5, out=str(out), resume=True))
    path.write_text("{")
    with pytest.raises(DevicePlacementError, match=r"Can't read .*config\.json"):
        search_randomly(RandomConfig(**SIMULATED, budget=5, out=str(out), resume=True))


class NothingRuns(ScriptedEvaluator):
    """Refuses every placement."""

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        return Evaluation.invalid("no such kernel")


def test_a_search_in_which_nothing_runs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = twelve_groups_evaluator()
    broken = NothingRuns(inner.coarse, inner.devices, inner.time_s)
    monkeypatch.setattr("device_placement.agents.runs.run.evaluator_of", lambda config: broken)
    with pytest.raises(DevicePlacementError, match=r"None of the 5 placements is valid"):
        search_randomly(RandomConfig(budget=5, out=str(tmp_path / "run")))


@needs_signals
def test_ctrl_c_leaves_a_usable_result(tmp_path: Path) -> None:
    """A real training in its own process, interrupted once it has evaluated something."""
    out = tmp_path / "run"
    options = ["--budget", "100000", "--max-samples", "4", "--rounds", "2"]
    interrupt(out, "train", "diamond", *options)
    assert (out / "policy.zip").exists()
    spent = len(lines(out))
    more = ["--resume", "--out", str(out), "--budget", str(spent + 2), "--rounds", "2"]
    assert main(["train", *more]) == 0
    assert len(lines(out)) in (spent, spent + 1, spent + 2)


def test_speedups_are_over_the_best_single_round_by_round() -> None:
    evaluations = {
        "slow": Evaluation(2.0, (2.0, 4.0), (2.0, 4.0)),
        "fast": Evaluation(1.0, (1.0, 2.0), (1.0, 2.0)),
        "found": Evaluation(0.5, (0.5, 1.0), (0.5, 1.0)),
        "broken": Evaluation.invalid("does \x1b[2Jnot\ncompile"),
    }
    rows = {row["name"]: row for row in make_rows(evaluations, ["slow", "fast", "broken"])}
    assert rows["found"]["speedup"] == 2.0
    assert rows["slow"]["speedup"] == 0.5
    assert "speedup" not in rows["broken"]
    table = format_table(list(rows.values()), "found").splitlines()
    assert any(line.startswith("found *") and "2.000x" in line for line in table)
    assert any(line.startswith("broken") and r"invalid: does \x1b[2Jnot" in line for line in table)


def test_all_twelve_group_placements_are_ranked() -> None:
    evaluator = twelve_groups_evaluator()
    best_s, best = evaluator.ranked()[0]
    every = itertools.product((0, 1), repeat=12)
    assert best_s == min(evaluator.time_s(np.array(one)) for one in every)
    assert len(set(best)) == 2  # no single is the optimum


def test_the_result_of_a_search_keeps_to_the_limit_of_the_outputs(tmp_path: Path) -> None:
    free = evaluator_of("diamond", None, reference="CPU_F32", verify=True)
    error = free.evaluate([0] * 4).output_error
    free.close()
    if error == 0:
        pytest.skip("this CPU computes in f32 anyway")
    out = tmp_path / "run"
    config = RandomConfig(
        model="diamond",
        devices=TWO_CPUS,
        budget=8,
        rounds=2,
        store=None,
        out=str(out),
        reference="CPU_F32",
        max_output_error=error * 0.9,
        **MEASURING,
    )
    assert search_randomly(config) == 0
    result = json.loads((out / "result.json").read_text())
    rows_by_name = {row["name"]: row for row in result["rows"]}
    assert "outputs differ" in rows_by_name["all on CPU"]["error"]
    assert result["result"] != "all on CPU"
    claim = Placement.load(out / "best_placement.json").claim
    assert claim is not None
    assert (claim.reference, claim.max_output_error) == ("CPU_F32", error * 0.9)
