"""Trainings that are stopped, by SIGKILL or otherwise, and go on as if they had not been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from stable_baselines3.common.save_util import load_from_zip_file

from device_placement.agents.cli import main
from device_placement.agents.commands.train import TrainConfig, train
from device_placement.agents.runs.resume import resume_config
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.checkpoints import (
    Checkpoints,
    random_states,
    set_random_states,
)
from device_placement.agents.training.policy_file import PolicyCard, read_progress
from device_placement.envs import DevicePlacementError
from places import HELPERS
from problems import chain
from runs import lines
from scripted import diamond_evaluator

SIMULATED: dict[str, Any] = {"devices": "CPU,GPU", "evaluator": "simulator", "max_groups": 12}

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass(frozen=True)
class Killed:
    """A training, and when it is killed."""

    preset: str
    models: str
    budget: int
    moment: str
    number: int
    override: str = ""

    def config(self, out: Path, **more: Any) -> TrainConfig:
        return TrainConfig(
            model=self.models,
            **SIMULATED,
            preset=self.preset,
            override=self.override,
            budget=self.budget,
            rounds=0,
            checkpoint_s=0.0,
            out=str(out),
            **more,
        )

    def case(self, out: Path) -> list[Any]:
        words = ["train", "--model", self.models, "--preset", self.preset]
        words += ["--devices", "CPU,GPU", "--evaluator", "simulator", "--max-groups", "12"]
        words += ["--budget", str(self.budget), "--rounds", "0", "--checkpoint-s", "0"]
        words += ["--override", self.override] if self.override else []
        return [self.moment, self.number, [*words, "--out", str(out)]]


KILLED = {
    "in a rollout": Killed("nodewise_ppo", "chain.xml", 50, "evaluation", 40),
    "in an update": Killed("hsdag", "chain.xml", 24, "update", 2, "n_steps=10"),
    "saving, two models": Killed("nodewise_ppo", "chain.xml,diamond", 60, "saving", 2),
}


@pytest.fixture(scope="module", autouse=True)
def chain_here(folder: Path) -> Iterator[None]:
    """`chain.xml` in the current folder: soon loaded, and it has many placements."""
    chain(folder, length=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the trainings, which are killed all at once."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    folders = {name: tmp_path_factory.mktemp("killed") / "run" for name in KILLED}
    cases = [KILLED[name].case(folder) for name, folder in folders.items()]
    done = subprocess.run(
        [sys.executable, str(HELPERS / "killed.py"), json.dumps(cases)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
        timeout=600,
    )
    assert json.loads(done.stdout) == [-signal.SIGKILL] * len(cases), done.stderr
    return folders


def weights(out: Path) -> dict[str, Any]:
    """Those of the policy, and the state of the optimizer."""
    found: Any = load_from_zip_file(out / "policy.zip", load_data=False)[1]
    return {**found["policy"], "optimizer": found["policy.optimizer"]}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def state(out: Path) -> dict[str, Any]:
    found = read_progress(out / "policy.zip")
    del found["algorithm"]["episodes"]  # only logged; a wrapper counts them from the resumption
    return found


def assert_same_run(one: Path, other: Path) -> None:
    assert_equal(weights(one), weights(other))
    assert state(one) == state(other)
    logs = sorted(path.relative_to(one) for path in one.rglob("evaluations.jsonl"))
    assert logs
    for log in logs:
        assert (one / log).read_text() == (other / log).read_text()
        best = log.with_name("best_placement.json")
        assert (one / best).read_text() == (other / best).read_text()


@pytest.mark.parametrize("name", KILLED)
def test_killed_and_resumed_it_ends_as_the_one_that_ran_through(
    name: str, killed: dict[str, Path], tmp_path: Path
) -> None:
    case, out = KILLED[name], killed[name]
    before = {log: log.read_text() for log in out.rglob("evaluations.jsonl")}
    assert train(resume_config(TrainConfig, str(out))) == 0
    assert train(case.config(tmp_path / "through")) == 0
    assert_same_run(out, tmp_path / "through")
    for log, text in before.items():  # nothing was evaluated or written twice
        assert log.read_text().startswith(text)
        keys = [tuple(line["assignment"]) for line in lines(log.parent)]
        assert len(set(keys)) == len(keys)
    assert not list(out.rglob("*.draft*")) or case.moment == "saving"


@pytest.mark.parametrize(
    ("preset", "formulation"),
    [
        ("ppo", "assign"),
        ("nodewise_a2c", "refine"),
        ("maskable_ppo", "construct"),
        ("rnn", "assign"),
    ],
)
def test_a_raised_budget_ends_as_if_it_had_been_so_from_the_beginning(
    preset: str, formulation: str, tmp_path: Path
) -> None:
    def run(out: str, budget: int, **more: Any) -> Path:
        config: dict[str, Any] = {
            **SIMULATED,
            "model": "chain.xml",
            "checkpoint_s": 1e9,
            **more,
        }
        folder = tmp_path / out
        assert train(TrainConfig(out=str(folder), budget=budget, rounds=0, **config)) == 0
        return folder

    begun: dict[str, Any] = {"preset": preset, "formulation": formulation}
    whole = run("whole", 26, **begun)
    run("twice", 18, **begun)
    twice = tmp_path / "twice"
    assert train(resume_config(TrainConfig, str(twice), budget=26)) == 0
    assert_same_run(whole, twice)


def test_without_a_checkpoint_it_is_repeated_from_the_beginning(tmp_path: Path) -> None:
    case = Killed("nodewise_ppo", "diamond", 8, "", 0)
    out, other = tmp_path / "run", tmp_path / "other"
    for folder in (out, other):
        assert train(case.config(folder)) == 0
    (out / "policy.zip").unlink()
    for _ in range(2):  # and then nothing is left to do
        assert train(resume_config(TrainConfig, str(out))) == 0
        assert_same_run(out, other)


def test_a_damaged_checkpoint_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(Killed("ppo", "diamond", 8, "", 0).config(out)) == 0
    (out / "policy.zip").write_bytes(b"no zip")
    capsys.readouterr()
    assert main(["train", "--resume", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "as a checkpoint" in error
    assert "Traceback" not in error
    assert main(["train", "--checkpoint-s", "-1"]) == 2
    assert "Got -1.0 seconds between checkpoints" in capsys.readouterr().err


def test_after_half_an_update_the_checkpoint_before_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of an update: its weights are not those of any moment to go on from."""
    evaluator = diamond_evaluator()
    card = PolicyCard.of("nodewise_ppo", None, [evaluator])
    algorithm = make_algorithm("nodewise_ppo", card.make_env(evaluator), seed=0)
    path = tmp_path / "policy.zip"
    checkpoints = Checkpoints(path, card)
    update = algorithm.train

    def interrupted() -> None:
        update()
        if algorithm.num_timesteps > 32:
            raise KeyboardInterrupt

    monkeypatch.setattr(algorithm, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        algorithm.learn(1000, callback=checkpoints)
    content = path.read_bytes()
    checkpoints.keep()
    assert path.read_bytes() == content
    assert read_progress(path)["num_timesteps"] == 32


def test_random_states_are_plain_data_and_repeat_what_is_drawn() -> None:
    import random

    import numpy as np

    def draw() -> list[float]:
        numbers = np.random.rand(3).tolist()  # noqa: NPY002
        return [*numbers, np.random.randn(), random.random(), float(torch.rand(()))]  # noqa: NPY002

    torch.rand(5), np.random.randn()  # noqa: NPY002
    states = json.loads(json.dumps(random_states()))
    first = draw()
    assert draw() != first
    set_random_states(states)
    assert draw() == first


def test_seconds_between_checkpoints_are_checked() -> None:
    with pytest.raises(DevicePlacementError, match="Got nan seconds"):
        train(TrainConfig(checkpoint_s=float("nan")))
