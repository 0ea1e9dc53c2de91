"""Presets as placers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.agents.training.preset_placer import PresetPlacer, named_search
from device_placement.envs import DevicePlacementError, make_evaluator
from scripted import diamond_evaluator, twelve_groups_evaluator

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["ppo", "hsdag", "placeto", "rnn"])
def test_a_learner_keeps_the_budget_and_is_the_same_again(name: str) -> None:
    found = [PresetPlacer(name).place(twelve_groups_evaluator(), 60, 1) for _ in range(2)]
    assert found[0].evaluations == found[1].evaluations
    asked = [assignment for assignment, _ in found[0].evaluations]
    assert asked[:2] == [(0,) * 12, (1,) * 12]
    assert len(set(asked)) == len(asked) <= 60
    assert len(asked) == 60 or name == "hsdag"  # which may propose little that is new
    assert found[0].time_s == min(time_s for _, time_s in found[0].evaluations)
    assert math.isnan(found[0].bound_s)


@pytest.mark.parametrize(
    ("name", "formulation"),
    [("nodewise_ppo", "assign"), ("nodewise_ppo", "construct"), ("placeto", None)],
)
def test_an_agent_that_sees_costs_is_the_same_again_and_another(
    name: str, formulation: str | None
) -> None:
    def requests(costs: str | None) -> list[tuple[int, ...]]:
        evaluator = make_evaluator("resnet50", "CPU,GPU", evaluator="simulator", max_groups=12)
        placer = PresetPlacer(name, formulation=formulation, costs=costs)
        return [assignment for assignment, _ in placer.place(evaluator, 40, 1).evaluations]

    seeing = requests("profile")
    assert seeing == requests("profile")
    assert requests(None) == requests("none") != seeing


def test_costs_need_an_evaluator_that_has_some() -> None:
    with pytest.raises(DevicePlacementError, match="costs='profile' with a ScriptedEvaluator"):
        PresetPlacer("ppo", costs="profile").place(diamond_evaluator(), 10, 0)


def test_construct_has_steps_enough() -> None:
    found = PresetPlacer("ppo", formulation="construct").place(diamond_evaluator(), 10, 0)
    assert len(found.evaluations) == 10


def test_it_leaves_no_folder_for_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SB3_LOGDIR", str(tmp_path / "log"))
    PresetPlacer("ppo").place(diamond_evaluator(), 10, 0)
    assert not list(tmp_path.iterdir())


def test_a_horizon_of_no_step_is_refused() -> None:
    with pytest.raises(DevicePlacementError, match="Got horizon=0"):
        PresetPlacer("ppo", horizon=0).place(diamond_evaluator(), 10, 0)


def test_it_ends_when_the_policy_has_settled() -> None:
    recorder = RecordingEvaluator(diamond_evaluator(), 1000)
    PresetPlacer("ppo", settled=50).place(recorder, 1000, 0)  # there are 16 placements
    assert 50 < recorder.num_requests < 1000


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nodewize_ppo", {}, "Unknown search 'nodewize_ppo'.*Did you mean 'nodewise_ppo'"),
        ("ppo", {"costs": "profil"}, "Unknown costs 'profil'; allowed: none, profile"),
        ("ppo", {"settled": 0}, "settled=0 for PresetPlacer; it must be 1 or more"),
        ("ppo", {"formulation": "asign"}, "asign"),
        ("ppo", {"setled": 5}, "Unknown option of the placer 'ppo' 'setled'.*'settled'"),
        ("genetic", {"population": 1}, "population=1 for Genetic"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        named_search(name, **options)
