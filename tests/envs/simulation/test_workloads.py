from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs import DevicePlacementEnv, DevicePlacementError, ModelError
from device_placement.envs.factory import make_evaluator
from device_placement.envs.simulation.workloads import load_workload
from places import HELPERS

FOLDER = HELPERS / "workloads"
EMPTY = '{"maxFPGAs": 2, "maxCPUs": 1, "maxSizePerFPGA": 1000, "nodes": [], "edges": []}'
TOWERS, BRANCH = FOLDER / "two_towers.json", FOLDER / "branch.txt"


def test_a_partitioning_file_is_read_as_it_says() -> None:
    workload = load_workload(TOWERS)
    graph, profile = workload.coarse.graph, workload.profile
    assert [device.name for device in profile.devices] == ["CPU", "FPGA.0", "FPGA.1"]
    assert [device.memory_bytes for device in profile.devices] == [None, 100, 100]
    assert profile.pays_transfers == (False, True, True)
    assert graph.op_names[0] == "0"
    assert graph.supported[0].tolist() == [True, False, False]
    row = graph.op_names.index("3")
    assert profile.op_s[row].tolist() == pytest.approx([0.010, 0.001, 0.001])
    assert graph.op_types[row] == "Gelu"
    coloured = [graph.op_names[group] for group in np.flatnonzero(workload.colour == 1)]
    assert coloured == ["2", "5"]
    assert (workload.colour[workload.colour != 1] == -1).all()


def test_the_score_is_that_of_the_paper() -> None:
    evaluator = load_workload(TOWERS).evaluator("max_load")
    place = dict.fromkeys(evaluator.coarse.graph.op_names, 0)
    # One tower and both coloured nodes on FPGA.0, what else remains on the CPU.
    place |= {"1": 1, "2": 1, "3": 1, "5": 1}
    groups = [place[name] for name in evaluator.coarse.graph.op_names]
    # Computes 4 + 4 + 1 + 4; receives from 0 and 4, sends 3's and 5's tensor.
    accelerator = 13 + 0.5 + 1 + 0.25 + 1
    processor = 4 + 40 + 10 + 8  # pays for no communication
    found = evaluator.evaluate(groups)
    assert found.time_s == pytest.approx(1e-3 * max(accelerator, processor))
    apart = list(groups)
    apart[evaluator.coarse.graph.op_names.index("5")] = 2
    assert "colour" in evaluator.evaluate(apart).error
    place |= {"4": 1}
    full = evaluator.evaluate([place[name] for name in evaluator.coarse.graph.op_names])
    assert "The weights on FPGA.0 take 120 bytes; it has 100" in full.error


def test_a_pipedream_profile_is_read_as_it_says() -> None:
    workload = load_workload(BRANCH, accelerators=2, bytes_per_s=1e9)
    graph, profile = workload.coarse.graph, workload.profile
    assert [device.name for device in profile.devices] == ["GPU.0", "GPU.1"]
    assert graph.op_types == ("Input0", "Conv2d", "ReLU", "Linear", "Linear", "Concat")
    assert profile.op_s[1].tolist() == pytest.approx([3e-3] * 2)
    assert graph.weight_bytes[3] == 262400
    trained = load_workload(BRANCH, training=True)
    assert trained.profile.op_s[1].tolist() == pytest.approx([9e-3] * 4)
    evaluator = workload.evaluator("sequential")
    moved_s = 4e6 / 1e9  # of the ReLU, once for both of its readers
    assert evaluator.evaluate([0, 0, 0, 1, 1, 1]).time_s == pytest.approx(6.6e-3 + moved_s)


def test_several_outputs_and_stages_of_pipedream_are_read(tmp_path: Path) -> None:
    path = tmp_path / "graph.txt"
    numbers = "forward_compute_time=1.0, backward_compute_time=1.0, parameter_size=0.0"
    path.write_text(
        f"a -- LSTM(8, 8) -- {numbers}, activation_size=[8.0; 4.0] -- stage_id=0\n"
        f"b -- Add -- {numbers}, activation_size=8.0 -- stage_id=1\n\ta -- b\n"
    )
    assert load_workload(path).coarse.edge_bytes.tolist() == [12.0]


@pytest.mark.parametrize("path", [TOWERS, BRANCH], ids=["partitioning", "pipedream"])
def test_a_workload_is_an_environment(path: Path) -> None:
    env = gym.make(
        "device_placement.envs:SimulatedDevicePlacement-v0",
        model=str(path),
        schedule="max_load",
    )
    check_env(env.unwrapped, skip_render_check=True)
    some = DevicePlacementEnv(str(path), ",".join(_names(path)[:2]), evaluator="simulator")
    assert some.action_space.nvec.tolist() == [2] * some.coarse.num_groups  # type: ignore[attr-defined]


def _names(path: Path) -> list[str]:
    return [device.name for device in load_workload(path).profile.devices]


def test_a_workload_takes_no_costs_from_elsewhere() -> None:
    for extra in ({"hardware": "paper"}, {"max_groups": 3}):
        with pytest.raises(DevicePlacementError, match="has groups and costs of its own"):
            make_evaluator(TOWERS, evaluator="simulator", **extra)


def changed(change: dict[str, Any], **top: Any) -> str:
    content = json.loads(TOWERS.read_text()) | top
    content["nodes"][1] |= change
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "TypeError"),
        (changed({"id": 0}), "the same id"),
        (changed({"id": 77}), "not both nodes"),
        (changed({"size": -1.0}), "negative"),
        (changed({"cpuLatency": -1.0}), "can't be costs"),
        (changed({"cpuLatency": "fast"}), "ValueError"),
        (changed({}, maxSizePerFPGA=None), "TypeError"),
        (changed({}, edges=[{"sourceId": 1, "destId": 1, "cost": 1.0}]), "cycle"),
        (changed({}, edges=[{"sourceId": 1, "destId": 2, "cost": -1.0}]), "negative"),
    ],
)
def test_broken_partitioning_files_say_what_is_wrong(
    tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ModelError, match=reason) as caught:
        load_workload(path)
    assert str(path) in str(caught.value)


def test_other_broken_input_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give a dnn-partitioning file"):
        load_workload("model.onnx")
    with pytest.raises(ModelError, match="FileNotFoundError"):
        load_workload(tmp_path / "none.json")
    with pytest.raises(DevicePlacementError, match="accelerators=0"):
        load_workload(TOWERS, accelerators=0)
    path = tmp_path / "graph.txt"
    path.write_text("node1 -- ReLU -- forward_compute_time=1.0\n")
    with pytest.raises(ModelError, match="KeyError: 'parameter_size'"):
        load_workload(path)
    path.write_text("hello\n")
    with pytest.raises(ModelError, match="neither a node nor an edge: 'hello'"):
        load_workload(path)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_documented_errors_only(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([TOWERS, BRANCH]))
    text = path.read_text()
    start = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 40))
    middle = data.draw(st.text(alphabet='0123456789-"{}[],.:= \n\tnaI', max_size=6))
    damaged = path.with_name(f".damaged{path.suffix}")
    damaged.write_text(text[:start] + middle + text[start + length :])
    try:
        load_workload(damaged)
    except DevicePlacementError:
        pass
    finally:
        damaged.unlink()


@pytest.mark.parametrize(("name", "text"), [("graph.txt", ""), ("graph.json", EMPTY)])
def test_a_workload_without_nodes_says_so(name: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ModelError, match="it has no nodes"):
        make_evaluator(str(path), evaluator="simulator")
