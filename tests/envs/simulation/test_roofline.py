"""Profiles derived from data sheets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.envs import (
    DeviceError,
    DevicePlacementError,
    HardwareProfile,
    SharedMemory,
    SimulatedEvaluator,
    coarsen,
    derive_profile,
    load_model,
    make_evaluator,
    read_graph,
)
from device_placement.envs.simulation.hardware import (
    HARDWARE,
    PAPER_SINGLES_S,
    DeviceSheet,
    Hardware,
    Link,
)
from graphs import make_graph

ROUND = DeviceSheet(
    "a device in round numbers",
    flops_per_s=1000.0,
    bytes_per_s=100.0,
    launch_s=0.25,
    efficiency={"convolution": 0.25, "product": 0.5, "memory": 0.5},
)
MACHINE = Hardware(
    "a machine in round numbers",
    {"CPU": ROUND, "GPU.0": replace(ROUND, lacks=("Relu",), memory_bytes=500), "GPU.1": ROUND},
    default=("CPU", "GPU.0"),
    link=Link(latency_s=1.0, bytes_per_s=10.0),
    links={("CPU", "GPU.1"): Link(latency_s=2.0, bytes_per_s=20.0)},
)
# Parameter (8 bytes) -> Convolution -> Relu -> MatMul, the two products with weights of 300 bytes.
GRAPH = make_graph(
    [(0, 2), (1, 2), (2, 3), (3, 5), (4, 5)],
    types=["Parameter", "Constant", "Convolution", "Relu", "Constant", "MatMul"],
    constant=[1, 4],
    flops=[0.0, 0.0, 5000.0, 50.0, 0.0, 1000.0],
    tensor_bytes=[8.0, 300.0, 12.0, 12.0, 300.0, 16.0],
    num_devices=3,
)


def test_the_roofline_by_hand() -> None:
    profile = derive_profile(GRAPH, MACHINE, "CPU")
    convolution = 0.25 + 5000 / (0.25 * 1000)  # 20 s; its bytes take 320 / 50 = 6.4 s
    relu = 0.25 + (12 + 12) / (0.5 * 100)  # 0.48 s; its FLOPs take 50 / 500 = 0.1 s
    product = 0.25 + (12 + 16 + 300) / (0.5 * 100)  # 6.56 s; its FLOPs take 2 s
    expected = [0.0, 0.0, convolution, relu, 0.0, product]
    assert profile.op_s[:, 0].tolist() == pytest.approx(expected)
    assert profile.provenance["kind"] == "derived"
    assert "launch + max" in profile.provenance["formula"]


def test_links_are_those_of_the_pair_or_of_the_machine() -> None:
    profile = derive_profile(GRAPH, MACHINE)
    assert [device.name for device in profile.devices] == ["CPU", "GPU.0", "GPU.1"]
    assert profile.latency_s.tolist() == [[0, 1, 2], [1, 0, 1], [1, 1, 0]]
    off = ~np.eye(3, dtype=np.bool_)
    assert profile.bytes_per_s[off].tolist() == [10, 20, 10, 10, 10, 10]
    assert np.isinf(profile.bytes_per_s[~off]).all()


def test_a_further_instance_takes_the_numbers_of_its_kind() -> None:
    profile = derive_profile(GRAPH, MACHINE, "CPU_F32:INFERENCE_PRECISION_HINT=f32,CPU,GPU.7")
    np.testing.assert_array_equal(profile.op_s[:, 0], profile.op_s[:, 1])
    assert str(profile.devices[0]) == "CPU_F32:INFERENCE_PRECISION_HINT=f32"
    assert profile.devices[2].memory_bytes == 500
    assert profile.latency_s[0, 1] == 1.0  # they are two devices


def test_what_a_device_lacks_is_not_placed_on_it() -> None:
    profile = derive_profile(GRAPH, MACHINE)
    assert np.argwhere(np.isnan(profile.op_s)).tolist() == [[3, 1]]
    npu: Any = make_evaluator("bert_base", "CPU,NPU", evaluator="simulator", hardware="laptop")
    types = np.array(npu.coarse.graph.op_types)
    lacking = np.isin(types, HARDWARE["laptop"].devices["NPU"].lacks)
    assert not npu.coarse.graph.supported[lacking, 1].any()
    assert npu.coarse.graph.supported[~lacking].all()
    assert npu.coarse.graph.supported[:, 0].all()
    assert not npu.evaluate([1] * npu.coarse.num_groups).valid


def test_weights_beyond_shared_memory_are_refused() -> None:
    pool = SharedMemory(("CPU", "GPU.1"), 550)
    machine = replace(MACHINE, shared_memory=(pool, SharedMemory(("GPU.0",), 900)))
    profile = derive_profile(GRAPH, machine, "CPU,CPU_F32,GPU.1")
    assert profile.shared_memory == (SharedMemory(("CPU", "CPU_F32", "GPU.1"), 550),)
    graph = read_graph(load_model("diamond"), "CPU,GPU.1", simulated=True)
    weights = int(graph.weight_bytes.sum())
    small = replace(machine, shared_memory=(SharedMemory(("CPU", "GPU.1"), weights - 1),))
    shared = derive_profile(graph, small, "CPU,GPU.1")
    evaluator = SimulatedEvaluator(coarsen(graph, "none"), "CPU,GPU.1", profile=shared)
    mixed = evaluator.evaluate([0, *[1] * (evaluator.coarse.num_groups - 1)])
    assert f"CPU and GPU.1 take {weights} bytes; they share {weights - 1}." in mixed.error


def test_weights_beyond_the_memory_are_refused() -> None:
    kinds = ["Parameter", "Constant", "Convolution", "Tanh", "Constant", "MatMul"]
    graph = replace(GRAPH, op_types=tuple(kinds), devices=("CPU", "GPU.0"),
                    supported=GRAPH.supported[:, :2])  # fmt: skip
    profile = derive_profile(graph, MACHINE, "CPU,GPU.0")
    assert [device.memory_bytes for device in profile.devices] == [None, 500]
    coarse = coarsen(graph, "none")
    evaluator = SimulatedEvaluator(coarse, "CPU,GPU.0", profile=profile)
    everything = evaluator.evaluate([1] * coarse.num_groups)
    assert "The weights on GPU.0 take 600 bytes; it has 500." in everything.error
    convolution = int(coarse.op_group[2])
    half = [int(group == convolution) for group in range(coarse.num_groups)]
    assert evaluator.evaluate(half).valid


@pytest.mark.parametrize("model", PAPER_SINGLES_S)
def test_the_singles_of_the_paper(model: str) -> None:
    graph = read_graph(load_model(model), "CPU,GPU.0,GPU.1", simulated=True)
    profile = derive_profile(graph, "paper")
    found = dict(zip((device.name for device in profile.devices), profile.op_s.sum(0), strict=True))
    for device, expected in PAPER_SINGLES_S[model].items():
        assert found[device] == pytest.approx(expected, rel=1e-12)
        assert profile.provenance["devices"][device]["fitted_factor"] != 1.0
    assert profile.provenance["devices"]["GPU.0"]["fitted_factor"] == 1.0  # not in the table
    evaluator: Any = make_evaluator(model, evaluator="simulator", hardware="paper")
    for number, device in enumerate(evaluator.devices):
        single = evaluator.evaluate([number] * evaluator.coarse.num_groups)
        assert single.time_s == pytest.approx(PAPER_SINGLES_S[model][device.name], rel=1e-12)


def test_a_model_that_the_paper_does_not_have_is_not_fitted() -> None:
    graph = read_graph(load_model("diamond"), "CPU,GPU.1", simulated=True)
    assert derive_profile(graph, "paper").provenance["fitted"] == "nothing"


@pytest.mark.parametrize("hardware", HARDWARE)
def test_every_machine_gives_a_profile_that_a_file_keeps(hardware: str, tmp_path: Path) -> None:
    profile = derive_profile(GRAPH, hardware)
    assert [device.name for device in profile.devices] == list(HARDWARE[hardware].devices)
    assert set(HARDWARE[hardware].default) <= set(HARDWARE[hardware].devices)
    profile.save(tmp_path / "profile.json")
    loaded = HardwareProfile.load(tmp_path / "profile.json")
    np.testing.assert_array_equal(loaded.op_s, profile.op_s)
    assert loaded.provenance == profile.provenance


def test_wrong_names_are_told() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown hardware 'papr'.*'paper'"):
        derive_profile(GRAPH, "papr")
    with pytest.raises(DeviceError, match="Unknown device of the hardware 'paper' 'NPU'; allowed"):
        derive_profile(GRAPH, "paper", "CPU,NPU")
