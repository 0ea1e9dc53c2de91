"""Copies of an environment: how many a preset steps, and that they share budget and updates."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.agents.commands.train import TrainConfig, train
from device_placement.agents.presets import PRESETS, preset
from device_placement.agents.runs.recording import BudgetError, RecordingEvaluator
from device_placement.agents.runs.resume import resume_config
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.copies import (
    WithinBudget,
    algorithm_on_copies,
    num_copies,
    update_steps,
)
from device_placement.agents.training.policy_file import PROGRESS, PolicyCard, read_progress
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.parts import COSTS
from runs import lines
from scripted import diamond_evaluator, simulated_diamond, twelve_groups_evaluator

pytestmark = pytest.mark.usefixtures("one_thread")

EVERY = [(name, formulation) for name in PRESETS for formulation in PRESETS[name].formulations]


TWELVE = twelve_groups_evaluator()


def evaluator_for(name: str, formulation: str) -> Evaluator:
    """With costs if the preset sees them."""
    return simulated_diamond() if COSTS[preset(name, formulation).costs] else TWELVE


@pytest.mark.parametrize(("name", "formulation"), EVERY)
def test_copies_share_the_steps_of_an_update(name: str, formulation: str) -> None:
    evaluator = evaluator_for(name, formulation)
    card = PolicyCard.of(name, formulation, [evaluator])
    copies = num_copies(card, [evaluator], budget=2000)
    together: Any = algorithm_on_copies(card, [evaluator], copies)
    alone: Any = make_algorithm(name, card.make_env(evaluator), formulation=formulation)
    assert together.n_envs == copies
    assert copies > 1 or name == "hsdag"
    assert together.n_envs * together.n_steps == alone.n_steps
    assert getattr(together, "batch_size", 0) == getattr(alone, "batch_size", 0)


@given(
    st.sampled_from(EVERY),
    st.integers(1, 200),
    st.integers(4, 3000),
    st.none() | st.integers(1, 99),
)
@settings(deadline=None)
def test_any_buffer_is_shared_without_a_rest(
    chosen: tuple[str, str], steps: int, budget: int, horizon: int | None
) -> None:
    evaluator = evaluator_for(*chosen)
    card = PolicyCard.of(*chosen, [evaluator], n_steps=steps)
    copies = num_copies(card, [evaluator], budget, horizon)
    assert update_steps(card, [evaluator]) == steps
    assert preset(*chosen).copies % copies == steps % copies == 0
    assert copies == 1 or copies * len(evaluator.devices) <= budget


def test_settings_that_the_algorithm_refuses_are_left_to_it() -> None:
    evaluator = twelve_groups_evaluator()
    for wrong in ("many", 1.5, None):
        assert (
            num_copies(PolicyCard.of("ppo", None, [evaluator], n_steps=wrong), [evaluator], 9) == 1
        )


def test_measured_placements_are_measured_by_one_copy() -> None:
    evaluator = twelve_groups_evaluator()
    evaluator.measures = True
    assert num_copies(PolicyCard.of("ppo", None, [evaluator]), [evaluator], 2000) == 1


def test_episodes_of_different_lengths_are_not_cut() -> None:
    several = [diamond_evaluator(), twelve_groups_evaluator()]
    assert num_copies(PolicyCard.of("ppo", "construct", several), several, 2000) == 1
    assert num_copies(PolicyCard.of("ppo", "assign", several), several, 2000) == 16
    alike = [twelve_groups_evaluator(), twelve_groups_evaluator()]
    assert num_copies(PolicyCard.of("ppo", "construct", alike), alike, 2000) == 16


def test_only_what_is_new_is_refused_beyond_the_budget() -> None:
    recorder = RecordingEvaluator(diamond_evaluator(), 3)
    limited = WithinBudget(recorder)
    for one in ([0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]):
        limited.evaluate(one)
    assert limited.evaluate([0, 1, 0, 0]).cached
    with pytest.raises(BudgetError, match="The budget of 3 placements is spent"):
        limited.evaluate([0, 0, 1, 0])
    assert recorder.num_distinct == 3


@pytest.mark.parametrize("name", ["ppo", "placeto", "rnn"])
def test_a_training_on_copies_keeps_the_budget_and_is_the_same_again(
    tmp_path: Path, name: str
) -> None:
    logs = []
    for number in range(2):
        config = small(tmp_path / str(number), preset=name, budget=45)
        assert train(config) == 0
        logs.append(lines(tmp_path / str(number)))
    assert logs[0] == logs[1]
    assert len(logs[0]) == 45
    assert len(read_progress(tmp_path / "0" / "policy.zip")["envs"]) > 1


def test_a_training_that_began_with_one_copy_goes_on_with_one(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert train(small(out, budget=45)) == 0
    path = out / "policy.zip"
    keep_one_copy(path)
    train(resume_config(TrainConfig, str(out), budget=80))
    assert len(read_progress(path)["envs"]) == 1
    assert len(lines(out)) == 80


def small(out: Path, **more: Any) -> TrainConfig:
    return TrainConfig(
        model="resnet50",
        devices="CPU,GPU",
        evaluator="simulator",
        max_groups=12,
        rounds=0,
        checkpoint_s=0.0,
        out=str(out),
        **more,
    )


def keep_one_copy(path: Path) -> None:
    """Make the checkpoint like those of versions that stepped one copy."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    progress = json.loads(members[PROGRESS])
    for key in ("envs", "episode_starts"):
        progress[key] = progress[key][:1]
    members[PROGRESS] = json.dumps(progress).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
