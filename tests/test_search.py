"""Budget, record, run folder, training and random search, and the commands around them."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import ScriptedEvaluator, twelve_groups_evaluator

from device_placement.agents.cli import COMMANDS, main
from device_placement.agents.placers.random_search import (
    RandomConfig,
    random_assignment,
    sample_placements,
    search_randomly,
)
from device_placement.agents.recording import REQUESTS_PER_BUDGET, RecordingEvaluator
from device_placement.agents.report import format_table, make_rows
from device_placement.agents.training import TrainConfig, train
from device_placement.envs import DevicePlacementError, Evaluation, Placement, make_evaluator

COMMAND = [sys.executable, "-m", "device_placement.agents.cli"]
SIMULATED = {"model": "resnet50", "devices": "CPU,GPU", "evaluator": "simulator"}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]


def test_the_budget_counts_distinct_placements_and_bounds_requests() -> None:
    recorder = RecordingEvaluator(twelve_groups_evaluator(), budget=4)
    recorder.evaluate_singles()
    assert (recorder.num_distinct, recorder.num_requests, recorder.spent) == (2, 2, False)
    for _ in range(REQUESTS_PER_BUDGET * 4 - 3):
        assert recorder.evaluate([0] * 12).cached
        assert not recorder.spent
    recorder.evaluate([0] * 12)
    assert recorder.spent
    assert recorder.num_distinct == 2
    other = RecordingEvaluator(twelve_groups_evaluator(), budget=3)
    sample_placements(other, seed=0)
    assert other.num_distinct == 3
    with pytest.raises(DevicePlacementError, match="budget of 2; 2 of it go to the singles"):
        RecordingEvaluator(twelve_groups_evaluator(), budget=2)


def test_the_record_is_replayed_even_when_its_last_line_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    first = RecordingEvaluator(twelve_groups_evaluator(), 10, log)
    sample_placements(first, seed=0)
    log.write_text(log.read_text() + '{"requests": 3, "assi')
    inner = twelve_groups_evaluator()
    second = RecordingEvaluator(inner, 20, log)
    assert (second.num_distinct, second.best, second.best_s) == (10, first.best, first.best_s)
    assert inner.num_calls == 0
    sample_placements(second, seed=1)
    assert len(log.read_text().splitlines()) == 20
    log.write_text("nonsense\n")
    with pytest.raises(DevicePlacementError, match=r"Line 1 of .*log\.jsonl"):
        RecordingEvaluator(inner, 20, log)


def test_a_record_of_another_problem_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    RecordingEvaluator(twelve_groups_evaluator(), 3, log).evaluate_singles()
    other = make_evaluator("resnet50", "CPU,GPU", evaluator="simulator")
    with pytest.raises(DevicePlacementError, match="12 groups; the model has"):
        RecordingEvaluator(other, 3, log)


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
    ("algo", "formulation"),
    [("ppo", "assign"), ("a2c", "refine"), ("maskable_ppo", "construct")],
)
def test_training_ends_with_a_table_and_can_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], algo: str, formulation: str
) -> None:
    out = tmp_path / "run"
    config = TrainConfig(
        **SIMULATED, algo=algo, formulation=formulation, budget=40, max_groups=8, out=str(out)
    )
    assert train(config) == 0
    assert "trained policy, greedy" in capsys.readouterr().out
    first = lines(out)
    assert len(first) <= 40
    assert list((out / "tensorboard").rglob("events*"))
    assert train(TrainConfig(algo=algo, out=str(out), resume=True, budget=60)) == 0
    second = lines(out)
    assert second[: len(first)] == first
    assert len({tuple(line["assignment"]) for line in second}) == len(second) <= 60
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
        search_randomly(RandomConfig(out=str(out), resume=True, model="diamond"))
    with pytest.raises(DevicePlacementError, match="made by another command"):
        train(TrainConfig(out=str(out), resume=True))
    assert search_randomly(RandomConfig(out=str(out), resume=True, budget=8)) == 0
    assert len(lines(out)) == 8
    path = out / "config.json"
    content = json.loads(path.read_text())
    assert content["settings"]["budget"] == 8
    path.write_text(json.dumps({**content, "model_hash": "another"}))
    with pytest.raises(DevicePlacementError, match="model with the hash another"):
        search_randomly(RandomConfig(out=str(out), resume=True))
    path.write_text("{")
    with pytest.raises(DevicePlacementError, match=r"Can't read .*config\.json"):
        search_randomly(RandomConfig(out=str(out), resume=True))


class NothingRuns(ScriptedEvaluator):
    """Refuses every placement."""

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        return Evaluation.invalid("no such kernel")


def test_a_search_in_which_nothing_runs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = twelve_groups_evaluator()
    broken = NothingRuns(inner.coarse, inner.devices, inner.time_s)
    monkeypatch.setattr("device_placement.agents.runs.evaluator_of", lambda config: broken)
    with pytest.raises(DevicePlacementError, match=r"None of the 5 placements is valid"):
        search_randomly(RandomConfig(budget=5, out=str(tmp_path / "run")))


def test_ctrl_c_leaves_a_usable_result(tmp_path: Path) -> None:
    """A real training in its own process, interrupted once it has evaluated something."""
    out = tmp_path / "run"
    arguments = ["--model", "diamond", "--budget", "100000", "--out", str(out)]
    process = subprocess.Popen(
        [*COMMAND, "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    log = out / "evaluations.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") > 4):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "the training evaluated nothing in two minutes"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert b"placements evaluated; results in" in stdout
    assert b"go on with --resume --out" in stdout
    assert b"Traceback" not in stderr
    Placement.load(out / "best_placement.json")
    assert (out / "policy.zip").exists()
    spent = len(lines(out))
    more = ["--resume", "--out", str(out), "--budget", str(spent + 2), "--rounds", "2"]
    done = subprocess.run([*COMMAND, "train", *more], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(lines(out)) in (spent, spent + 1, spent + 2)


def test_speedups_are_over_the_best_single_round_by_round() -> None:
    evaluations = {
        "slow": Evaluation(2.0, (2.0, 4.0), (2.0, 4.0)),
        "fast": Evaluation(1.0, (1.0, 2.0), (1.0, 2.0)),
        "found": Evaluation(0.5, (0.5, 1.0), (0.5, 1.0)),
        "broken": Evaluation.invalid("does not\ncompile"),
    }
    rows = {row["name"]: row for row in make_rows(evaluations, ["slow", "fast", "broken"])}
    assert rows["found"]["speedup"] == 2.0
    assert rows["slow"]["speedup"] == 0.5
    assert "speedup" not in rows["broken"]
    table = format_table(list(rows.values()), "found").splitlines()
    assert any(line.startswith("found *") and "2.000x" in line for line in table)
    assert any(line.startswith("broken") and "invalid: does not" in line for line in table)


def test_help_names_every_command_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"device-placement {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Unknown command 'trian'.*Did you mean 'train'"),
        (["train", "--algo", "pp0"], "Unknown algorithm 'pp0'"),
        (["train", "--formulation", "asign"], "Unknown formulation 'asign'"),
        (["train", "--torch-device", "gpu"], "torch can't use the device 'gpu'"),
        (["train", "--reward", "invers"], "Unknown reward 'invers'"),
        (["train", "--model", "resnet5"], "resnet5.*Did you mean 'resnet50'"),
        (["train", "--devices", "CPU,GPU.7"], r"Unknown device 'GPU\.7'; this machine has: CPU"),
        (["random", "--devices", "CPU"], "Got one device"),
        (["inspect", "nothing.onnx"], r"No model file 'nothing\.onnx'"),
        (["random", "--model", "diamond", "--budget", "1"], "budget of 1"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import re

    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_imports_nothing_heavy_to_answer_help() -> None:
    code = (
        "import sys; from device_placement.agents.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'openvino', 'gymnasium', 'tyro'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_all_twelve_group_placements_are_ranked() -> None:
    evaluator = twelve_groups_evaluator()
    best_s, best = evaluator.ranked()[0]
    every = itertools.product((0, 1), repeat=12)
    assert best_s == min(evaluator.time_s(np.array(one)) for one in every)
    assert len(set(best)) == 2  # no single is the optimum
