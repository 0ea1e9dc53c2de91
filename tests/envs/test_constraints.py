"""Constraints in environments: masks, repair, the reference, machines of many chips."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from constrained import valid_placements
from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    DevicePlacementVectorEnv,
    SimulatedEvaluator,
    make_evaluator,
)
from device_placement.envs.devices import Device
from device_placement.envs.simulation.schedule import SCHEDULES, schedule_times

CHIPS = "NPU.0,NPU.1,NPU.2"
KIND: dict[str, Any] = {"model": "diamond", "devices": CHIPS, "evaluator": "simulator"}
MCM: dict[str, Any] = KIND | {"hardware": "mcm"}


def chips(number: int) -> str:
    return ",".join(f"NPU.{one}" for one in range(number))


def test_the_hardware_brings_its_schedule_and_constraints() -> None:
    evaluator = make_evaluator("diamond", evaluator="simulator", hardware="mcm")
    assert evaluator.schedule == "pipelined"
    assert evaluator.costs.constraints == ("acyclic", "no_skip", "triangle", "memory")
    assert len(evaluator.devices) == 4
    free = make_evaluator("diamond", evaluator="simulator", hardware="mcm", constraints="")
    assert free.costs.constraints == ()
    # Data passes the ring one way: from the third chip to the second it goes nearly all around.
    assert free.costs.latency_s[2, 1] > free.costs.latency_s[1, 2]


@pytest.mark.parametrize(
    ("placement", "reason"),
    [
        ([1, 0, 1, 1], "'acyclic'"),
        ([0, 0, 2, 2], "'no_skip'"),
        ([0, 1, 0, 2], "'triangle'"),
        ([0, 1, 0, 1], ""),
    ],
)
def test_evaluations_name_what_is_broken(placement: list[int], reason: str) -> None:
    found = make_evaluator(**MCM).evaluate(placement)
    assert found.valid == (not reason)
    assert reason in found.error


@pytest.mark.parametrize(
    "changes", [{"constraints": "acyclic,no_skip"}, {"constraints": None, "repair": "fix"}]
)
def test_masks_of_construct_lead_to_valid_placements(changes: dict[str, Any]) -> None:
    env = DevicePlacementEnv(**(MCM | changes), formulation="construct")
    valid = valid_placements(env.evaluator.costs)  # type: ignore[arg-type]
    generator = np.random.default_rng(0)
    for _ in range(30):
        env.reset(seed=0)
        ended = False
        while not ended:
            allowed = np.flatnonzero(env.action_masks())
            _, _, ended, _, info = env.step(int(generator.choice(allowed)))
        assert info["valid"], info["error"]
        assert tuple(info["placement"]) in valid


def test_masks_of_refine_are_the_valid_moves() -> None:
    env = DevicePlacementEnv(**MCM, formulation="refine")
    env.reset(seed=0)
    valid = valid_placements(env.evaluator.costs)  # type: ignore[arg-type]
    masks = env.action_masks()
    for action in range(masks.size):
        moved = [0, 0, 0, 0]
        moved[action // 3] = action % 3
        assert masks[action] == (tuple(moved) in valid)
    repairing = DevicePlacementEnv(**MCM, formulation="refine", repair="fix")
    repairing.reset(seed=0)
    assert repairing.action_masks().all()
    assert repairing.step(3 * 3 + 2)[4]["valid"]  # the last group to the last chip


def test_masks_of_assign_leave_out_what_no_valid_placement_has() -> None:
    env = DevicePlacementEnv(**(MCM | {"constraints": "acyclic,no_skip"}))
    env.reset(seed=0)
    masks = env.action_masks().reshape(4, 3)
    valid = np.array([*valid_placements(env.evaluator.costs)])  # type: ignore[arg-type]
    for group in range(4):
        assert set(np.flatnonzero(masks[group])) == set(valid[:, group])
    assert not masks.all()


@pytest.mark.parametrize("repair", ["fix", "sample", "nearest"])
def test_repair_counts_its_moves_and_shows_what_was_evaluated(repair: str) -> None:
    env = DevicePlacementEnv(**MCM, repair=repair)
    env.reset(seed=3)
    _, reward, *_, info = env.step(np.array([2, 0, 1, 0]))
    assert info["valid"]
    assert info["repaired"] == (np.array(info["placement"]) != [2, 0, 1, 0]).sum() > 0
    assert reward == -1e3 * info["time_s"]
    *_, info = env.step(np.array([0, 1, 0, 1]))
    assert (info["repaired"], info["placement"]) == (0, [0, 1, 0, 1])


@pytest.mark.parametrize("formulation", ["assign", "construct"])
@pytest.mark.parametrize("repair", ["none", "sample"])
def test_many_copies_equal_single_ones(formulation: str, repair: str) -> None:
    arguments = MCM | {"formulation": formulation, "repair": repair}
    many = DevicePlacementVectorEnv(3, **arguments)
    single = SyncVectorEnv([lambda: DevicePlacementEnv(**arguments)] * 3)
    generator = np.random.default_rng(1)
    many.reset(seed=5), single.reset(seed=5)
    for _ in range(12):
        masks = many.action_masks()
        singles = [one.unwrapped.action_masks() for one in single.envs]  # type: ignore[attr-defined]
        assert (masks == np.array(singles)).all()
        actions = generator.integers(3, size=many.action_space.shape)
        _, *first, infos = many.step(actions)
        _, *second, other = single.step(actions)
        for one, two in zip(first, second, strict=True):
            assert (one == two).all()
        assert (infos["repaired"] == other["repaired"]).all()
        assert infos["placement"].tolist() == [[*one] for one in other["placement"]]


def test_snapshots_keep_the_number_of_moves() -> None:
    env = DevicePlacementEnv(**MCM, repair="fix")
    env.reset(seed=0)
    info = env.step(np.array([2, 0, 1, 0]))[4]
    other = DevicePlacementEnv(**MCM, repair="fix")
    other.reset(seed=1)
    other.restore(env.snapshot())
    assert other._info()["repaired"] == info["repaired"]


def test_a_balanced_placement_is_the_reference_where_no_chip_holds_the_model() -> None:
    whole = make_evaluator("diamond", CHIPS, evaluator="simulator", hardware="mcm")
    sizes = whole.costs.group_bytes
    small = [Device(f"NPU.{one}", memory_bytes=int(sizes.sum() * 2 // 3)) for one in range(3)]
    for formulation in ("assign", "construct", "refine"):
        env = DevicePlacementEnv(**(MCM | {"devices": small}), formulation=formulation)
        _, info = env.reset(seed=0)
        assert 0 < info["best_time_s"] == env.baseline().reference_s
        assert env.evaluator.evaluate(info["best_placement"]).valid
        assert env.baseline().start(4).tolist() == info["best_placement"]
    many = DevicePlacementVectorEnv(2, **(MCM | {"devices": small}))
    _, infos = many.reset(seed=0)
    assert infos["best_placement"].tolist() == [info["best_placement"]] * 2


def test_only_pipelined_takes_more_than_16_devices() -> None:
    evaluator = make_evaluator("diamond", chips(36), evaluator="simulator", hardware="mcm")
    assert evaluator.evaluate([0, 1, 0, 1]).valid
    for name in SCHEDULES:
        if name != "pipelined":
            with pytest.raises(DevicePlacementError, match=r"36 devices.* up to 16.*'pipelined'"):
                make_evaluator(
                    "diamond", chips(36), evaluator="simulator", hardware="mcm", schedule=name
                )
            with pytest.raises(DevicePlacementError, match=r"36 devices.* up to 16"):
                schedule_times(evaluator.costs, np.zeros((1, 4), dtype=int), name)
    with pytest.raises(DevicePlacementError, match=r"61 devices.* up to 60"):
        make_evaluator("diamond", chips(61), evaluator="simulator", hardware="mcm")


def test_36_chips_take_the_time_of_their_largest_load() -> None:
    evaluator = make_evaluator("resnet50", chips(36), evaluator="simulator", hardware="mcm")
    costs, groups = evaluator.costs, evaluator.coarse.num_groups
    placement = np.minimum(np.arange(groups) * 36 // groups, 35)
    load = np.zeros((36, 36))
    np.add.at(load, (placement, placement), costs.compute_s[range(groups), placement])
    for tensor, producer in enumerate(costs.tensor_group.tolist()):
        for device in {*placement[costs.readers(tensor)]} - {placement[producer]}:
            load[placement[producer], device] += costs.transfer_s(tensor)[
                placement[producer], device
            ]
    plain = schedule_times(costs, placement[None], "pipelined")
    assert plain[0] in (np.inf, pytest.approx(load.max(), rel=1e-12))
    free = make_evaluator(
        "resnet50", chips(36), evaluator="simulator", hardware="mcm", constraints=""
    )
    assert free.evaluate(placement.tolist()).time_s == pytest.approx(load.max(), rel=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"constraints": "acylic"}, "Did you mean 'acyclic'"),
        ({"repair": "fixed"}, "Did you mean 'fix'"),
        (
            {"evaluator": "openvino", "devices": "CPU,CPU_B", "hardware": "", "repair": "fix"},
            "repair",
        ),
        ({"evaluator": "openvino", "hardware": "", "constraints": "acyclic"}, "for the simulator"),
        (
            {"hardware": "desktop", "devices": "CPU,GPU", "constraints": "memory"},
            "CPU, GPU .2 of 2",
        ),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        DevicePlacementEnv(**(MCM | changes))


def test_a_model_larger_than_all_chips_is_refused() -> None:
    tiny = [Device(f"NPU.{one}", memory_bytes=16) for one in range(3)]
    with pytest.raises(DevicePlacementError, match="Give devices with more memory"):
        make_evaluator("diamond", tiny, evaluator="simulator", hardware="mcm")


def test_the_registered_environment_takes_constraints() -> None:
    env = gym.make("SimulatedDevicePlacement-v0", **{**MCM, "evaluator": "simulator"}, repair="fix")
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4]["valid"]
    assert isinstance(env.unwrapped.evaluator, SimulatedEvaluator)  # type: ignore[attr-defined]
