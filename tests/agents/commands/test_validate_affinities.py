"""The command `validate` on a user's own affinities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openvino as ov
import pytest

from device_placement.agents.cli import main
from device_placement.envs import PlacementError, load_model, make_core, parse_devices, read_graph
from device_placement.envs.user_affinities import place_by, read_affinities
from problems import chain
from stateful_models import recurrent

QUICK = ["--store", "none", "--isolation", "none", "--max-samples", "2"]


@pytest.fixture(scope="module")
def model(folder: Path) -> str:
    return chain(folder, length=4)


@pytest.fixture(scope="module")
def names(model: str) -> dict[str, list[str]]:
    """Friendly names of the file's ops, by their types, in topological order."""
    found: dict[str, list[str]] = {}
    for op in ov.Core().read_model(model).get_ordered_ops():
        found.setdefault(op.get_type_name(), []).append(op.get_friendly_name())
    return found


def halves(names: dict[str, list[str]]) -> dict[str, str]:
    """Affinities that put the first half of each kind of op on the CPU."""
    return {
        name: "CPU" if 2 * number < len(several) else "CPU_B"
        for several in names.values()
        for number, name in enumerate(several)
    }


def test_affinities_by_the_names_of_the_file_are_measured(
    model: str, names: dict[str, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "affinities.json"
    path.write_text(json.dumps(halves(names) | {names["Result"][0]: "CPU_B"}))
    assert main(["validate", model, str(path), *QUICK]) in (0, 1)  # the clock decides
    said = capsys.readouterr().out
    assert "on CPU, CPU_B" in said
    assert "2 subgraphs" in said
    assert "the speed of the best single" in said
    assert "outputs  relative L2 error" in said
    assert "advice   1 tensors, 0.00819 MB, move between devices" in said


def test_names_of_the_normalised_model_and_spelled_devices_are_known(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ops = [op.get_friendly_name() for op in load_model(model).get_ordered_ops()]
    path = tmp_path / "affinities.json"
    path.write_text(json.dumps(dict.fromkeys(ops, "-CPU")))
    assert read_affinities(path) == dict.fromkeys(ops, "CPU")
    assert main(["validate", str(path), model, *QUICK]) in (0, 1)
    assert "1 subgraphs" in capsys.readouterr().out


def placed(model: str, affinities: dict[str, str]) -> Any:
    loaded, devices = load_model(model), parse_devices("CPU,CPU_B")
    graph = read_graph(loaded, devices, make_core(devices))
    names = {op.get_friendly_name() for op in ov.Core().read_model(model).get_ops()}
    return place_by(affinities, graph, loaded, devices, names)


def test_constants_and_unnamed_ops_join_their_readers(
    model: str, names: dict[str, list[str]]
) -> None:
    given = halves(names)
    given |= dict.fromkeys(names["Constant"], "CPU_B")
    del given[names["Parameter"][0]], given[names["Result"][0]]
    found = placed(model, given)
    text = " ".join(found.advice)
    assert "2 constants are on another device than the op that reads them" in text
    assert "2 ops have no device" in text
    devices = dict(zip(found.placement.op_names, found.placement.op_devices, strict=True))
    kinds = {name.partition("_")[2]: device for name, device in devices.items()}
    assert (devices["op0_Parameter"], kinds["Result"]) == (0, 1)
    assert sum(devices[name] for name in devices if "Constant" in name) == 2


def test_sets_that_run_as_one_are_not_to_be_cut(model: str, names: dict[str, list[str]]) -> None:
    given = dict.fromkeys([one for several in names.values() for one in several], "CPU")
    given |= dict.fromkeys(names["Relu"], "CPU_B")
    assert any(
        "sets of ops that a device would run as one" in one for one in placed(model, given).advice
    )


def test_unknown_names_are_refused_with_the_nearest(
    model: str, names: dict[str, list[str]]
) -> None:
    name = names["Relu"][0]
    with pytest.raises(PlacementError, match=rf"Unknown op '{name}x', and 0 more.*Did you mean"):
        placed(model, {f"{name}x": "CPU"})


def test_ops_that_share_a_state_need_one_device() -> None:
    model = load_model(recurrent())
    devices = parse_devices("CPU,CPU_B")
    graph = read_graph(model, devices, make_core(devices))
    tied = [graph.op_names[op] for op in graph.tied[0].ops]
    with pytest.raises(PlacementError, match="must share a device"):
        place_by({tied[0]: "CPU", tied[-1]: "CPU_B"}, graph, model, devices)


@pytest.mark.parametrize("content", ["{}", '{"a": 1}', '{"a": ["CPU"]}'])
def test_other_objects_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "affinities.json"
    path.write_text(content)
    with pytest.raises(PlacementError, match=r"as affinities .* give \{friendly name: device\}"):
        read_affinities(path)
