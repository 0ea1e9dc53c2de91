from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.agents.placers.exact.common import alike_devices
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs import (
    DeviceError,
    DevicePlacementError,
    GeneratorConfig,
    HardwareProfile,
    SimulatedEvaluator,
    coarsen,
    generate_problem,
    make_evaluator,
    parse_devices,
)
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.graph.features import OP_TYPES, group_features
from device_placement.envs.problems.generator import draw_problem, runs_whole_model
from device_placement.envs.problems.graphs import OP_KINDS
from device_placement.envs.problems.wiring import FAMILIES
from device_placement.envs.simulation.schedule import SCHEDULES

SEEDS = st.integers(0, 2**32 - 1)
RESTRICTED = GeneratorConfig(groups=(20, 40), devices=(3, 6), limited_share=1.0, lacking_share=1.0)


def digest(evaluator: SimulatedEvaluator) -> str:
    """Hash of all that a problem consists of."""
    graph, profile, coarse = evaluator.coarse.graph, evaluator.profile, evaluator.coarse
    found = hashlib.sha256()
    for values in (
        *(graph.flops, graph.bytes_in, graph.bytes_out, graph.weight_bytes, graph.edge_index),
        *(graph.edge_bytes, graph.supported, coarse.edge_index, coarse.edge_bytes),
        *(profile.op_s, profile.latency_s, profile.bytes_per_s, profile.region_s),
        *(profile.crossing_s, profile.split_factor),
    ):
        found.update(np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<")).tobytes())
    words = graph.op_types, graph.output_shapes, profile.devices, profile.pays_transfers
    found.update(repr((words, profile.shared_memory, evaluator.schedule)).encode())
    return found.hexdigest()[:16]


# On every machine and under every release of NumPy. They change with `generator.VERSION` only.
GOLDEN = {
    0: "666b932e3d6837e7",
    1: "429d46c0cb30a8aa",
    2: "a02b99e867411a06",
    3: "ac3198996ee922b1",
    7: "5d56cec9febed3f0",
    11: "0f5133ad3c5f1c5e",
    4_000_000_000: "22a4007b1e20e475",
    4_294_967_295: "ed6c6d93eb44b714",
}


@pytest.mark.parametrize("seed", GOLDEN)
def test_a_seed_means_the_same_problem_everywhere(seed: int) -> None:
    assert digest(generate_problem(seed)) == GOLDEN[seed]


def test_a_problem_does_not_depend_on_what_was_generated_before() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_generator import digest; "
        "from device_placement.envs import generate_problem; print(digest(generate_problem(11)))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    alone = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    for seed in (3, 12):
        generate_problem(seed)
    np.random.default_rng(0).random(5)
    assert digest(generate_problem(11)) == alone


def test_settings_are_part_of_a_problems_identity() -> None:
    usual, other = generate_problem(5), generate_problem(5, GeneratorConfig(devices=(2, 3)))
    assert usual.coarse.graph.model_hash != other.coarse.graph.model_hash
    assert generate_problem(6).coarse.graph.model_hash != usual.coarse.graph.model_hash
    assert other.profile.provenance["settings"]["devices"] == [2, 3]
    assert usual.profile.provenance["seed"] == 5


def check_problem(evaluator: SimulatedEvaluator) -> None:
    """Check what holds for every generated problem."""
    coarse, graph, costs = evaluator.coarse, evaluator.coarse.graph, evaluator.costs
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    assert len({*map(tuple, graph.edge_index.T.tolist())}) == graph.num_edges
    assert coarse.num_groups == graph.num_ops
    assert {*graph.op_types} <= {*OP_KINDS} <= {*OP_TYPES}
    assert coarse.supported.any(axis=1).all()
    assert coarse.supported[:, 0].all()
    assert coarse.supported.any(axis=0).all()
    assert (graph.weight_bytes >= 0).all()
    assert graph.weight_bytes.sum() >= 1
    assert np.isnan(evaluator.profile.op_s).tolist() == (~coarse.supported).tolist()
    assert ((costs.compute_s > 0) & (np.isfinite(costs.compute_s) == coarse.supported)).all()
    assert not costs.regional.is_idle.any()
    for size, shape in zip(graph.bytes_out, graph.output_shapes, strict=True):
        assert size in (2 * np.prod(shape), 4 * np.prod(shape))
    assert parse_devices([str(one) for one in evaluator.devices])
    assert evaluator.devices[0].name == "CPU"
    assert runs_whole_model(evaluator)[0]
    features = group_features(coarse)
    assert np.isfinite(features).all()
    singles = np.array([*single_assignments(evaluator).values()])
    drawn = SearchSpace.of(evaluator).sample(np.random.default_rng(0), 5)
    for schedule in SCHEDULES:
        other = SimulatedEvaluator(
            coarse, evaluator.devices, profile=evaluator.profile, schedule=schedule
        )
        times = other.evaluate_many(singles)
        assert (times > 0).all()
        assert np.isfinite(times).tolist() == runs_whole_model(evaluator).tolist()
        for row, time_s in zip(drawn, other.evaluate_many(drawn), strict=True):
            found = other.evaluate(row)
            assert found.valid == np.isfinite(time_s)
            assert found.valid or "weights" in found.error


@settings(max_examples=30, deadline=None)
@given(SEEDS)
def test_problems_of_the_default_distribution_are_sound(seed: int) -> None:
    check_problem(generate_problem(seed))


@settings(max_examples=60, deadline=None)
@given(
    SEEDS,
    st.tuples(st.integers(4, 60), st.integers(4, 60)),
    st.tuples(st.integers(2, 16), st.integers(2, 16)),
    st.sampled_from([*FAMILIES]),
    st.sampled_from([*SCHEDULES]),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 4.0]),
)
def test_problems_of_other_settings_are_sound(
    seed: int,
    groups: tuple[int, int],
    devices: tuple[int, int],
    family: str,
    schedule: str,
    share: float,
    spread: float,
) -> None:
    least, most = sorted(groups)
    few, many = sorted(devices)
    config = GeneratorConfig(
        groups=(least, most),
        devices=(few, many),
        families=(family,),
        schedules=(schedule,),
        speed_spread=spread,
        type_spread=spread,
        twin_share=share,
        limited_share=share,
        pool_share=share,
        lacking_share=share,
    )
    evaluator = generate_problem(seed, config)
    check_problem(evaluator)
    assert least <= evaluator.coarse.num_groups <= most
    assert few <= len(evaluator.devices) <= many
    assert evaluator.schedule == schedule


def test_coarsening_by_none_makes_the_same_groups() -> None:
    for seed in range(20):
        coarse = generate_problem(seed).coarse
        again = coarsen(coarse.graph, "none")
        assert again.op_group.tolist() == coarse.op_group.tolist()
        assert again.edge_index.tolist() == coarse.edge_index.tolist()
        assert again.edge_bytes.tolist() == coarse.edge_bytes.tolist()
        assert again.supported.tolist() == coarse.supported.tolist()


def test_the_default_distribution_is_wide() -> None:
    problems = [draw_problem(seed) for seed in range(300)]
    evaluators = [one.evaluator() for one in problems]
    assert {one.schedule for one in problems} == {*SCHEDULES}
    assert {one.family for one in problems} == {*FAMILIES}
    assert {len(one.devices) for one in evaluators} == {*range(2, 9)}
    groups = [one.coarse.num_groups for one in evaluators]
    assert min(groups) < 15
    assert max(groups) > 250
    costs = [one.costs for one in evaluators]
    pooled = [bool(one.pool_bytes.size) for one in costs]
    limited = [one.restricted for one in costs]
    lacking = [bool(np.isinf(one.compute_s).any()) for one in costs]
    alike = [len(alike_devices(one)) < one.num_devices for one in costs]
    several = [bool((np.diff(one.reader_start) > 1).any()) for one in costs]
    assert np.mean(pooled) > 0.03
    assert 0.3 < np.mean(limited) < 0.5
    assert 0.25 < np.mean(lacking) < 0.45
    assert 0.25 < np.mean(alike) < 0.5
    assert np.mean(several) > 0.6


def test_a_limit_forbids_a_single_and_shared_memory_counts_together() -> None:
    for seed in range(40):
        evaluator = generate_problem(seed, RESTRICTED)
        costs = evaluator.costs
        if len(alike_devices(costs)) == 1:
            continue
        total = costs.group_bytes.sum()
        assert np.isinf(costs.memory_bytes[0])
        for members, limit in costs.memory_limits():
            assert 0 not in members
            assert 1 <= limit <= total


def test_twins_have_one_name_each_and_equal_numbers() -> None:
    evaluator = generate_problem(1, GeneratorConfig(devices=(8, 8), twin_share=1.0))
    names = [one.name for one in evaluator.devices]
    assert len({*names}) == 8
    assert max(map(len, alike_devices(evaluator.costs))) > 1


def test_a_profile_of_a_problem_is_saved_and_read(tmp_path: Path) -> None:
    for seed in range(10):
        evaluator = generate_problem(seed, RESTRICTED)
        evaluator.profile.save(tmp_path / "profile.json")
        again = HardwareProfile.load(tmp_path / "profile.json")
        read = SimulatedEvaluator(
            evaluator.coarse, again.devices, profile=again, schedule=evaluator.schedule
        )
        assert digest(read) == digest(evaluator)
        assert json.loads(json.dumps(again.provenance)) == evaluator.profile.provenance


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(DevicePlacementError, match=f"Got seed={seed}; it must be from 0 to"):
        generate_problem(seed)


def test_a_model_of_that_name_is_the_problem() -> None:
    evaluator = make_evaluator("generated:7", evaluator="simulator")
    assert digest(evaluator) == digest(generate_problem(7))
    other = next(one for one in SCHEDULES if one != evaluator.schedule)
    replaced = make_evaluator("generated:7", evaluator="simulator", schedule=other)
    assert replaced.schedule == other
    assert replaced.costs.compute_s.tolist() == evaluator.costs.compute_s.tolist()


def test_some_of_its_devices_may_be_chosen() -> None:
    whole = next(
        one
        for one in (
            make_evaluator(f"generated:{seed}", evaluator="simulator") for seed in range(99)
        )
        if len(one.devices) > 3 and runs_whole_model(one).sum() == 1
    )
    names = [one.name for one in whole.devices]
    model = whole.coarse.graph.name
    chosen = make_evaluator(model, [names[2], names[0]], evaluator="simulator")
    assert [one.name for one in chosen.devices] == [names[2], names[0]]
    assert chosen.costs.compute_s.tolist() == whole.costs.compute_s[:, [2, 0]].tolist()
    with pytest.raises(
        DeviceError, match=f"none of which runs the whole model; add .*: {names[0]}"
    ):
        make_evaluator(model, names[1:3], evaluator="simulator")
    with pytest.raises(DeviceError, match=r"Got one device, .*at least two of CPU, .*Name more"):
        make_evaluator(model, names[:1], evaluator="simulator")
    with pytest.raises(DevicePlacementError, match=r"Unknown device of .* 'XPU'; allowed: CPU"):
        make_evaluator(model, "CPU,XPU", evaluator="simulator")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hardware": "paper"}, r"Got hardware with 'generated:7'; .* costs of its own\. Leave"),
        ({"profile": "mine.json"}, "Got profile with 'generated:7'"),
        ({"max_groups": 5, "hardware": "paper"}, "Got hardware, max_groups with"),
        ({"coarsening": "colocation"}, "Got coarsening with 'generated:7'"),
        ({"input_shapes": {"x": [1]}}, "Got input_shapes with 'generated:7'"),
        ({"inputs": {"x": [1]}}, "Got inputs, which are for measuring"),
        ({"schedule": "pipeline"}, r"Unknown schedule 'pipeline'.*Did you mean 'pipelined'"),
        ({"evaluator": "openvino"}, r"can only be simulated; add evaluator='simulator'"),
    ],
)
def test_what_does_not_go_with_a_problem_is_refused(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        make_evaluator("generated:7", **{"evaluator": "simulator", **options})  # type: ignore[call-overload]


def test_other_models_keep_their_schedule() -> None:
    assert make_evaluator("diamond", evaluator="simulator").schedule == "sequential"
    with pytest.raises(DevicePlacementError, match="Unknown schedule 'none'"):
        make_evaluator("diamond", evaluator="simulator", schedule="none")


@pytest.mark.parametrize("formulation", ["", "Construct", "Refine"])
def test_gymnasiums_checker_passes_on_a_problem(formulation: str) -> None:
    env = gym.make(f"SimulatedDevicePlacement{formulation}-v0", model="generated:7", horizon=3)
    check_env(env.unwrapped, skip_render_check=True)


def test_an_environment_takes_several_problems_of_the_same_devices() -> None:
    models: dict[object, list[str]] = {}
    for seed in range(200):
        models.setdefault(generate_problem(seed).devices, []).append(f"generated:{seed}")
    chosen = max(models.values(), key=len)[:3]
    env = gym.make("SimulatedDevicePlacement-v0", model=chosen).unwrapped
    assert len(chosen) == 3
    for number in range(3):
        _, info = env.reset(seed=0, options={"graph_id": number})
        assert len(info["placement"]) == env.get_wrapper_attr("coarse").num_groups
