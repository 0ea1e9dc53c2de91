"""Who may take part in a benchmark."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import own_algorithms
from device_placement.agents.placers import PLACERS
from device_placement.agents.placers.base import PlacerResult
from device_placement.agents.training.preset_placer import PresetPlacer
from device_placement.benchmarks.suite.algorithms import (
    DETERMINISTIC,
    EVERYONE,
    VARIANTS,
    find_algorithm,
    sees_costs,
)
from device_placement.envs import DevicePlacementError, PlacementError, make_evaluator
from device_placement.envs.graph.features import num_features
from scripted import diamond_evaluator

OWN = "own_algorithms:"


def run(name: str, budget: int = 8) -> PlacerResult:
    return find_algorithm(name).place(diamond_evaluator(), budget, seed=3)


@pytest.mark.parametrize("name", ["guess", "step"])
def test_an_own_algorithm_is_scored_by_the_best_that_it_evaluated(name: str) -> None:
    found = run(OWN + name)
    times = [time_s for _, time_s in found.evaluations]
    assert len(times) == 8
    assert found.time_s == min(times)
    assert dict(found.evaluations)[found.assignment] == found.time_s


def test_what_it_returns_is_evaluated() -> None:
    assert run(OWN + "answer").assignment == (1, 1, 1, 1)
    assert run(OWN + "nothing").assignment == ()


def test_a_file_will_do(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    (tmp_path / "helpers_of_mine.py").write_text("DEVICE = 1\n")
    path.write_text(
        inspect.getsource(own_algorithms)
        + "\nimport dataclasses\nfrom helpers_of_mine import DEVICE\n"
        + "@dataclasses.dataclass\nclass Settings:\n    device: int = DEVICE\n"
    )
    assert run(f"{path}:answer").assignment == (1, 1, 1, 1)


def test_two_files_do_not_share_what_they_import(tmp_path: Path) -> None:
    for folder, device in (("a-b", 0), ("a_b", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "settings_of_mine.py").write_text(f"DEVICE = {device}\n")
        (tmp_path / folder / "alg.py").write_text(
            "def search(evaluator, budget, seed):\n"
            "    from settings_of_mine import DEVICE\n"
            "    return [DEVICE] * evaluator.coarse.num_groups\n"
        )
    for folder, device in (("a-b", 0), ("a_b", 1), ("a-b", 0)):
        assert run(f"{tmp_path / folder / 'alg.py'}:search").assignment == (device,) * 4


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("too_short", PlacementError, "shape .1,.; the model has 4 groups"),
        ("no_device", PlacementError, "device 9; devices are numbered 0 to 1"),
        ("greedy_for_more", DevicePlacementError, "more than the budget of 8 placements"),
        ("one_more", DevicePlacementError, "more than the budget of 8 placements"),
        ("endless", DevicePlacementError, "10 times as often; stop when evaluator.spent"),
        ("broken", RuntimeError, "a bug"),
    ],
)
def test_what_is_no_result(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(OWN + name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("anealing", "Unknown placer 'anealing'.*Did you mean 'annealing'.*MODULE:FUNCTION"),
        (OWN + "gess", "has no such function 'gess'"),
        (OWN + "wrong_parameters", r"a function of \(evaluator, budget, seed\)"),
        ("not_there:search", "no module 'not_there' here"),
        ("not_there.py:search", "no file 'not_there.py'"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        find_algorithm(name)


def test_a_variant_leaves_features_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spaces_only(name: str, env: object, **options: object) -> None:
        seen.append(env.observation_space["node_features"].shape[1])  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr("device_placement.agents.training.copies.make_algorithm", spaces_only)
    ablations = {name: one["without"] for name, one in VARIANTS.items() if "without" in one}
    assert len(ablations) == 3
    for name in ("hsdag", *ablations):
        with pytest.raises(KeyboardInterrupt):
            run(name)
    whole, *parts = seen
    assert [whole - part for part in parts] == [*map(num_features, ablations.values())]
    with pytest.raises(DevicePlacementError, match=r"feature block of hsdag 'shape'.*output_shape"):
        PresetPlacer("hsdag", without=("shape",))


def test_a_variant_is_its_preset_with_costs() -> None:
    names = [name for name in VARIANTS if name.endswith("_with_costs")]
    assert len(names) == 4
    for name in names:
        base = name.removesuffix("_with_costs")
        assert find_algorithm(name) == PresetPlacer(base, costs="profile")
        assert sees_costs(name)
        assert not sees_costs(base)


def test_who_sees_costs() -> None:
    found = {name for name in (*EVERYONE, *VARIANTS) if sees_costs(name)}
    assert found == {
        *(name for name, one in PLACERS.items() if one.needs_costs or one.sees_costs),
        "construct_ppo",
        *(
            name
            for name, one in VARIANTS.items()
            if "costs" in one or one["preset"] == "construct_ppo"
        ),
    }
    assert {"greedy", "cp_sat", "pretrained", "gdp_with_costs"} < found
    assert not sees_costs(f"{OWN}guess")


@pytest.mark.parametrize("name", sorted({*DETERMINISTIC} - {"contiguous"}))
def test_what_has_nothing_random_gives_the_same_for_any_seed(name: str) -> None:
    evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    found = [find_algorithm(name).place(evaluator, 8, seed) for seed in (0, 1)]
    assert found[0].evaluations == found[1].evaluations
