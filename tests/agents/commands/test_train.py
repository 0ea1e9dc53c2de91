"""The command `train`: several models at once, its curves, its early end, what it compares."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from device_placement.agents.cli import main
from device_placement.agents.commands.train import TrainConfig, train
from device_placement.agents.presets import PRESETS
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.callbacks import (
    entropy_per_decision,
    known_optimum_s,
    num_decisions,
)
from device_placement.agents.training.policy_file import PolicyCard, read_card
from device_placement.envs import Placement, make_evaluator
from places import HELPERS
from runs import lines
from scripted import diamond_evaluator

SIMULATED = ["--evaluator", "simulator", "--devices", "CPU,GPU", "--max-groups", "8"]
FILES = {"evaluations.jsonl", "best_placement.json", "result.json"}

pytestmark = pytest.mark.usefixtures("one_thread")


def curves(out: Path) -> dict[str, list[float]]:
    """The values of each curve."""
    (folder,) = (out / "tensorboard").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    names = events.Tags()["scalars"]
    return {name: [one.value for one in events.Scalars(name)] for name in names}


def test_several_models_are_trained_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--model", "resnet50, diamond", "--preset", "nodewise_ppo", "--budget", "50"]
    assert main(["train", *words, *SIMULATED, "--samples", "3", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    names = ("resnet50", "diamond")
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "policy.zip",
        "tensorboard",
        *names,
    }
    logs = {name: lines(out / name) for name in names}
    assert sum(map(len, logs.values())) <= 50
    assert f"{sum(map(len, logs.values()))} placements evaluated; results in {out}" in text
    for name, log in logs.items():
        assert {path.name for path in (out / name).iterdir()} == FILES
        assert len(log) > 2  # more than the singles
        result = json.loads((out / name / "result.json").read_text())
        rows = {row["name"]: row["time_s"] for row in result["rows"]}
        assert rows["best found"] == min(line["evaluation"]["time_s"] for line in log)
        assert {"trained policy, greedy", "trained policy, best of 3"} <= rows.keys()
        assert Placement.load(out / name / "best_placement.json").model_name == name
        assert f"\n{name}\n" in text
    assert read_card(out / "policy.zip").models == names
    drawn = curves(out)
    assert not any(name in drawn for name in ("placement/best_ms", "placement/gap_percent"))
    for name in names:
        times = drawn[f"placement/{name}/best_ms"]
        assert times == sorted(times, reverse=True)
        assert min(drawn[f"placement/{name}/gap_percent"]) >= 0
    seen = sum(map(len, logs.values()))
    assert drawn["placement/distinct"][-1] == seen
    other = [*SIMULATED, "--policy", str(out / "policy.zip"), "--samples", "2"]
    assert main(["place", "inception_v3", *other, "--out", str(tmp_path / "placed")]) == 0


def test_several_models_share_devices_and_names_do_not_clash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainConfig(model="a/net.onnx,b/net.xml,, c")
    assert config.models == ("a/net.onnx", "b/net.xml", "c")
    path = tmp_path / "one,net.onnx"
    path.touch()
    assert TrainConfig(model=str(path)).models == (str(path),)
    assert TrainConfig(model=",").models == (",",)
    words = ["train", "--model", "diamond,resnet5", *SIMULATED, "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert "resnet50" in capsys.readouterr().err
    words[2] = "diamond,diamond"
    assert main([*words, "--budget", "4"]) == 2
    assert "Got a budget of 4; 4 of it go to the singles" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert main([*words, "--budget", "8", "--rounds", "0"]) == 0
    assert {"diamond", "diamond-2"} <= {one.name for one in (tmp_path / "run").iterdir()}


def test_models_on_different_devices_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = HELPERS / "workloads"
    several = f"diamond,{next(workload.rglob('*.txt'))}"
    words = ["--model", several, "--evaluator", "simulator", "--out", str(tmp_path / "run")]
    assert main(["train", *words]) == 2
    assert "; one policy places all models on the same devices." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_patience_ends_a_training_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["--model", "resnet50", *SIMULATED, "--budget", "200", "--out", str(out)]
    assert main(["train", *words, "--patience", "10"]) == 0
    said = "Stopped early: the last 10 placements brought no new best (--patience 10)"
    assert said in capsys.readouterr().out
    times = [line["evaluation"]["time_s"] for line in lines(out)]
    assert len(times) - 1 - times.index(min(times)) == 10
    assert main(["train", "--resume", "--out", str(out), "--rounds", "0"]) == 0
    assert said in capsys.readouterr().out
    assert len(lines(out)) == len(times)  # it is as patient as before
    assert main(["train", "--resume", "--out", str(out), "--patience", "15"]) == 0
    assert len(lines(out)) > len(times)
    assert len(list((out / "tensorboard").iterdir())) == 1  # its curves go on
    assert main(["train", *words[:-1], str(tmp_path / "other"), "--patience", "1"]) == 2
    assert "Got a patience of 1; the 2 singles alone" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_random_search_is_patient_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    words = ["--model", "resnet50", *SIMULATED, "--budget", "200", "--out", str(out)]
    assert main(["random", *words, "--patience", "8"]) == 0
    assert "Stopped early: the last 8 placements" in capsys.readouterr().out


def test_the_curves_of_one_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config: dict[str, Any] = {"evaluator": "simulator", "max_groups": 8, "rounds": 0}
    assert train(TrainConfig(preset="hsdag_ppo", budget=25, out=str(out), **config)) == 0
    drawn = {name.removeprefix("placement/"): curve for name, curve in curves(out).items()}
    optimum_s = known_optimum_s(make_evaluator("resnet50", evaluator="simulator", max_groups=8))
    best_s = min(line["evaluation"]["time_s"] for line in lines(out))
    assert drawn["best_ms"][-1] == pytest.approx(1e3 * best_s)
    assert drawn["gap_percent"][-1] == pytest.approx(100 * (best_s / optimum_s - 1), abs=1e-4)
    assert all(1 <= number <= 8 for number in drawn["learned_groups"])
    # Two devices, as likely at first: the entropy of a decision begins about log 2.
    assert drawn["entropy"][0] == pytest.approx(math.log(2), abs=0.15)
    assert all(0 <= one < 2 for one in drawn["entropy"])
    assert {"time_ms", "num_subgraphs", "distinct"} <= drawn.keys()


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"construct_ppo"}))  # which begins as greedy
def test_the_entropy_of_a_policy_that_has_learned_nothing(preset: str) -> None:
    """Of each preset, whatever an action of it is: the mean over its decisions is log 2."""
    evaluator = diamond_evaluator()
    env = PolicyCard.of(preset, None, [evaluator]).make_env(evaluator)
    algorithm = make_algorithm(preset, env, seed=0)
    observation, _ = env.reset(seed=0)
    found = []
    for _ in range(40):
        tensors, _ = algorithm.policy.obs_to_tensor(observation)
        algorithm.policy.set_training_mode(False)
        with torch.no_grad():
            _, _, log_prob = algorithm.policy(tensors)
        decisions = num_decisions(algorithm, evaluator.coarse.num_groups)
        found.append(entropy_per_decision(float(log_prob[0]), decisions))
    assert sum(found) / len(found) == pytest.approx(math.log(2), abs=0.05)


def test_the_optimum_is_known_for_two_devices_one_after_the_other() -> None:
    def optimum(model: str, devices: str = "CPU,GPU", **options: Any) -> float:
        made = make_evaluator(model, devices, evaluator="simulator", **options)
        return known_optimum_s(made)

    assert optimum("resnet50", max_groups=8) < math.inf
    assert math.isnan(optimum("diamond", "CPU,GPU,NPU", hardware="laptop"))
    assert math.isnan(optimum("diamond", schedule="concurrent"))
    assert math.isnan(known_optimum_s(diamond_evaluator()))
