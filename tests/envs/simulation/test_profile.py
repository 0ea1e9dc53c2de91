"""Hardware profiles: what they refuse, and that a file gives back what was saved."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.envs import (
    Device,
    DevicePlacementError,
    HardwareProfile,
    PlacementError,
    SharedMemory,
)
from graphs import make_graph

GRAPH = make_graph([(0, 1), (1, 2)])
PROFILE = HardwareProfile(
    name="a chain",
    model="test",
    model_hash="0",
    op_names=("op0", "op1", "op2"),
    devices=(
        Device("CPU", (("INFERENCE_PRECISION_HINT", "f32"), ("NUM_STREAMS", "1"))),
        Device("GPU.0", memory_bytes=2**30),
        Device("NPU"),
    ),
    op_s=np.array([[1.0, 2.0, math.nan], [3.0, 0.1, 0.0], [5e-324, 1e300, 4.0]]),
    latency_s=np.array([[0.0, 1e-5, 2e-5], [3e-5, 0.0, 4e-5], [5e-5, 0.0, 0.0]]),
    bytes_per_s=np.array([[math.inf, 1e9, math.inf], [2e9, math.inf, 3e9], [4e9, 5e9, math.inf]]),
    subgraph_s=np.array([0.0, 1e-4, 2e-4]),
    pays_transfers=(False, True, True),
    provenance={"kind": "measured", "host": "here", "numbers": [1, 2.5, None]},
)


def saved(folder: Path, **changes: Any) -> Path:
    """The file of the profile, with some of its content changed; a callable gets the old value."""
    path = folder / "profile.json"
    PROFILE.save(path)
    content = json.loads(path.read_text())
    for key, change in changes.items():
        content[key] = change(content[key]) if callable(change) else change
    path.write_text(json.dumps(content))
    return path


def test_a_saved_profile_is_the_same_when_loaded(tmp_path: Path) -> None:
    PROFILE.save(tmp_path / "profile.json")
    loaded = HardwareProfile.load(tmp_path / "profile.json")
    for name in ("op_s", "latency_s", "bytes_per_s", "subgraph_s"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(PROFILE, name), name)
    for name in ("name", "model", "model_hash", "op_names", "devices", "pays_transfers"):
        assert getattr(loaded, name) == getattr(PROFILE, name)
    assert loaded.provenance == PROFILE.provenance
    assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]


def test_costs_of_regions_are_saved_and_selected_and_may_be_missing(tmp_path: Path) -> None:
    costs = {
        "region_s": np.array([1e-5, 2e-5, 0.0]),
        "crossing_s": np.array([0.0, 3e-6, 4e-6]),
        "split_factor": np.array([1.0, 1.5, 2.0]),
    }
    replace(PROFILE, **costs).save(tmp_path / "regions.json")
    loaded = HardwareProfile.load(tmp_path / "regions.json")
    for name, expected in costs.items():
        np.testing.assert_array_equal(getattr(loaded, name), expected)
        chosen = loaded.select(["NPU", "CPU"])
        np.testing.assert_array_equal(getattr(chosen, name), expected[[2, 0]])
    # Files of profiles without them are what they were.
    plain = saved(tmp_path)
    assert not costs.keys() & json.loads(plain.read_text()).keys()
    assert HardwareProfile.load(plain).split_factor.tolist() == [1, 1, 1]
    assert HardwareProfile.load(plain).region_s.tolist() == [0, 0, 0]


SHARED = (SharedMemory(("CPU", "GPU.0"), 2**31), SharedMemory(("GPU.0", "NPU"), 2**32))


def test_shared_memory_is_saved_and_selected(tmp_path: Path) -> None:
    replace(PROFILE, shared_memory=SHARED).save(tmp_path / "shared.json")
    loaded = HardwareProfile.load(tmp_path / "shared.json")
    assert loaded.shared_memory == SHARED
    of_two = loaded.select(["NPU", "CPU"])
    assert of_two.shared_memory == (SharedMemory(("CPU",), 2**31), SharedMemory(("NPU",), 2**32))
    assert loaded.select(["NPU"]).shared_memory == (SharedMemory(("NPU",), 2**32),)
    # Files of profiles without it are what they were.
    assert "shared_memory" not in json.loads(saved(tmp_path).read_text())


def test_saving_replaces_a_file_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_text()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        replace(PROFILE, name="another").save(path)
    assert path.read_text() == before


def drop(key: str) -> Any:
    return lambda old: {name: value for name, value in old.items() if name != key}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something else"}, "format 'something else', version 1"),
        ({"version": 2}, "version 2.*of version 1"),
        ({"provenance": {"kind": "guessed"}}, "Unknown kind of profile 'guessed'; allowed: meas"),
        ({"provenance": {}}, "Unknown kind of profile 'None'"),
        ({"latency_s": [[0.0, 1.0], [1.0, 0.0]]}, r"latency_s of shape \(2, 2\).*must be \(3, 3\)"),
        ({"shared_memory": [{"devices": ["CPU"], "memory_bytes": 0}]}, "more than 0 bytes"),
        ({"shared_memory": [{"devices": ["GPU.1"], "memory_bytes": 9}]}, r"GPU\.1.*its devices"),
        ({"shared_memory": [{"devices": [], "memory_bytes": 9}]}, "some of its devices"),
        ({"shared_memory": [{"devices": ["CPU"]}]}, "KeyError"),
        ({"subgraph_s": [0.0]}, r"subgraph_s of shape \(1,\)"),
        ({"region_s": [0.0]}, r"region_s of shape \(1,\)"),
        ({"crossing_s": [0.0, 0.0, -1.0]}, "whose numbers can't be costs"),
        ({"split_factor": [1.0, 0.5, 1.0]}, "split factors of 1 or more"),
        ({"op_s": {"op0": [1.0, 2.0]}}, r"op_s of shape \(1, 2\)"),
        ({"op_s": {"op0": [1.0, 2.0, 3.0], "op1": [1.0]}}, "ValueError"),
        ({"op_s": {"op0": [1.0, -2.0, 3.0]}}, "whose numbers can't be costs"),
        ({"op_s": {"op0": [1.0, math.inf, 3.0]}}, "whose numbers can't be costs"),
        ({"op_s": {"op0": [1.0, "fast", 3.0]}}, "ValueError"),
        ({"op_s": {"op0": 1.0}}, "TypeError"),
        ({"op_s": [[1.0, 2.0, 3.0]]}, "AttributeError|TypeError"),
        ({"latency_s": [[0.0, -1.0, 0.0], [0.0] * 3, [0.0] * 3]}, "whose numbers can't be costs"),
        (
            {"latency_s": [[0.0, math.nan, 0.0], [0.0] * 3, [0.0] * 3]},
            "whose numbers can't be costs",
        ),
        ({"latency_s": [[1.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3]}, "sends to itself"),
        ({"bytes_per_s": [[None, 0.0, 1.0], [1.0, None, 1.0], [1.0, 1.0, None]]}, "bandwidths"),
        ({"bytes_per_s": [[None, math.nan, 1.0], [1.0, None, 1.0], [1.0, 1.0, None]]}, "bandwid"),
        ({"bytes_per_s": [[9.0, 1.0, 1.0], [1.0, None, 1.0], [1.0, 1.0, None]]}, "sends to itself"),
        ({"subgraph_s": [0.0, math.inf, 0.0]}, "whose numbers can't be costs"),
        ({"subgraph_s": [0.0, -1.0, 0.0]}, "whose numbers can't be costs"),
        ({"subgraph_s": [0.0, None, 0.0]}, "whose numbers can't be costs"),
        ({"subgraph_s": [0.0, 10**400, 0.0]}, "OverflowError"),
        ({"devices": lambda old: [*old[:2], old[0]]}, "every device and op once"),
        ({"devices": lambda old: [*old[:2], old[2] | {"device": "not a device!"}]}, "Can't read"),
        ({"devices": lambda old: [*old[:2], old[2] | {"memory_bytes": math.inf}]}, "OverflowError"),
        ({"devices": lambda old: [*old[:2], drop("memory_bytes")(old[2])]}, "KeyError"),
        ({"devices": []}, r"op_s of shape|whose numbers can't be costs"),
        ({"devices": None}, "TypeError"),
    ],
)
def test_a_broken_file_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(DevicePlacementError, match=message) as caught:
        HardwareProfile.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, '{"format": ', "\xff"])
def test_what_is_no_profile_at_all_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DevicePlacementError, match="give a file that `device-placement profile`"):
        HardwareProfile.load(path)
    with pytest.raises(DevicePlacementError, match="FileNotFoundError"):
        HardwareProfile.load(tmp_path / "missing.json")


def test_some_of_the_devices_in_another_order() -> None:
    chosen = PROFILE.select(["NPU", "CPU"])
    assert [device.name for device in chosen.devices] == ["NPU", "CPU"]
    np.testing.assert_array_equal(chosen.op_s, PROFILE.op_s[:, [2, 0]])
    assert chosen.latency_s.tolist() == [[0.0, 5e-5], [2e-5, 0.0]]
    assert chosen.bytes_per_s.tolist() == [[math.inf, 4e9], [math.inf, math.inf]]
    assert chosen.subgraph_s.tolist() == [2e-4, 0.0]
    assert chosen.pays_transfers == (True, False)
    assert chosen.provenance == PROFILE.provenance
    with pytest.raises(DevicePlacementError, match=r"Unknown device of 'a chain' 'GPU'.*GPU\.0"):
        PROFILE.select(["GPU"])


def test_ops_are_joined_by_name() -> None:
    order = ("op2", "op0", "op1")
    shuffled = replace(PROFILE, op_names=order, op_s=PROFILE.op_s[[2, 0, 1]])
    np.testing.assert_array_equal(shuffled.op_times(GRAPH), PROFILE.op_s)
    graph = make_graph([(0, 1), (1, 2)], supported=[(1, 1, 1), (0, 1, 1), (1, 1, 1)])
    assert PROFILE.supported(graph).tolist() == [
        [True, True, False],  # the profile has no time
        [False, True, True],  # the graph says no
        [True, True, True],
    ]


@pytest.mark.parametrize(
    "graph", [replace(GRAPH, model_hash="1"), replace(GRAPH, op_names=("op0", "op1", "op9"))]
)
def test_a_profile_of_another_model_is_refused(graph: Any) -> None:
    with pytest.raises(PlacementError, match=r"is of 'test' with the hash 0, not of 'test'"):
        PROFILE.op_times(graph)
