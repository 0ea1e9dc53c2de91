from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.agents.placers.exact.common import alike_devices
from device_placement.envs import GeneratorConfig, generate_problem
from device_placement.envs.simulation.profile import HardwareProfile

SEEDS = st.integers(0, 2**32 - 1)
FREE = {"groups": (10, 20), "limited_share": 0.0}


def profile_of(seed: int, **options: object) -> HardwareProfile:
    return generate_problem(seed, GeneratorConfig(**{**FREE, **options})).profile  # type: ignore[arg-type]


@settings(deadline=None)
@given(SEEDS)
def test_links_take_time_between_devices_only(seed: int) -> None:
    profile = profile_of(seed)
    other = ~np.eye(len(profile.devices), dtype=np.bool_)
    assert (profile.latency_s[other] > 0).all()
    assert np.isfinite(profile.bytes_per_s[other]).all()
    assert (profile.bytes_per_s > 0).all()


@settings(deadline=None)
@given(SEEDS)
def test_devices_of_equal_speeds_are_exact_twins(seed: int) -> None:
    costs = generate_problem(seed, GeneratorConfig(**FREE, devices=(3, 8), twin_share=1.0)).costs  # type: ignore[arg-type]
    columns = [costs.compute_s[:, device].tobytes() for device in range(costs.num_devices)]
    kinds: dict[bytes, list[int]] = {}
    for device, column in enumerate(columns):
        kinds.setdefault(column, []).append(device)
    assert alike_devices(costs) == [*kinds.values()]
    assert len(kinds) < costs.num_devices


@settings(deadline=None)
@given(SEEDS)
def test_without_twins_all_devices_differ(seed: int) -> None:
    costs = generate_problem(seed, GeneratorConfig(**FREE, twin_share=0.0)).costs  # type: ignore[arg-type]
    assert len(alike_devices(costs)) == costs.num_devices


def test_equal_ops_take_equal_times() -> None:
    evaluator = generate_problem(3, GeneratorConfig(groups=(100, 100), families=("repeated",)))
    graph = evaluator.coarse.graph
    keys = [*zip(graph.op_types, graph.output_shapes, graph.bytes_in.tolist(), strict=True)]
    for key in {*keys}:
        rows = evaluator.costs.compute_s[[one == key for one in keys]]
        assert (rows == rows[0]).all()
    assert len({*keys}) < 50


def test_devices_are_good_at_different_types() -> None:
    for seed in range(10):
        evaluator = generate_problem(seed, GeneratorConfig(groups=(100, 100), twin_share=0.0))
        times = np.nan_to_num(evaluator.profile.op_s, nan=np.inf)
        assert len({*times.argmin(axis=1).tolist()}) > 1


@pytest.mark.parametrize("ratio", [0.01, 1.0])
def test_transfers_take_the_given_share_of_compute(ratio: float) -> None:
    found = []
    for seed in range(60):
        evaluator = generate_problem(
            seed, GeneratorConfig(transfer_ratio=(ratio, ratio), lacking_share=0.0)
        )
        costs, graph = evaluator.costs, evaluator.coarse.graph
        moves = np.median(costs.latency_s[0, 1:]) + graph.edge_bytes.mean() * np.median(
            costs.s_per_byte[0, 1:]
        )
        found.append(moves / costs.compute_s.min(axis=1).mean())
    assert np.median(found) == pytest.approx(ratio, rel=1e-6)


def test_groups_take_the_given_seconds_on_the_first_device() -> None:
    for seed in range(20):
        config = GeneratorConfig(group_s=(1e-4, 1e-4), type_spread=0.0)
        op_s = generate_problem(seed, config).profile.op_s[:, 0]
        assert 1e-4 * 0.8 < op_s.mean() < 1e-4 * 1.7  # noise, and the time to launch an op


def test_all_links_limits_and_layouts_occur() -> None:
    profiles = [profile_of(seed, devices=(3, 3), twin_share=0.0) for seed in range(60)]
    between = [one.bytes_per_s[1, 2] / one.bytes_per_s[0, 1] for one in profiles]
    assert sum(ratio == 0.5 for ratio in between) > 5  # through the host
    assert sum(ratio == 1.0 for ratio in between) > 5  # equal
    assert sum(ratio > 1.9 for ratio in between) > 5  # fast between accelerators
    back = [one.bytes_per_s[1, 0] / one.bytes_per_s[0, 1] for one in profiles]
    assert sum(ratio != 1.0 for ratio in back) > 5
