"""What `device-placement devices` and `device-placement inspect` print."""

from __future__ import annotations

from importlib.metadata import version

import openvino as ov
import pytest

from device_placement.agents.commands.inspect import (
    DevicesConfig,
    InspectConfig,
    inspect_model,
    show_devices,
)
from device_placement.envs.devices import discover_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError, ModelError
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.models.loading import load_model, model_hash
from others import FILES, QUANTISED, STATES, shapes_text
from stateful_models import decoder, detector

TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"


def inspect(capsys, *args, **kwargs):
    """The printed lines, with runs of blanks made one."""
    assert inspect_model(InspectConfig(*args, **kwargs)) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_devices(capsys):
    assert show_devices(DevicesConfig()) == 0
    output = capsys.readouterr().out
    assert any(line.startswith("CPU ") for line in output.splitlines())
    assert ",".join(map(str, discover_devices())) in output
    assert f"OpenVINO  {version('openvino')}" in output


def test_inspect_describes_the_model(capsys):
    lines = inspect(capsys, "resnet50", devices=TWO_CPUS)
    graph = read_graph(load_model("resnet50"), "CPU")
    computed = (~graph.is_constant).sum()
    assert lines[:2] == ["model resnet50", f"hash {graph.model_hash}"]
    assert "input x [1,3,224,224] f32" in lines
    assert "output logits [1,1000] f32" in lines
    assert f"ops {graph.num_ops} ({computed} without constants)" in lines
    assert f"edges {graph.num_edges}" in lines
    assert f"GFLOPs {graph.flops.sum() / 1e9:.3f}" in lines
    assert f"weights {graph.weight_bytes.sum() / 1e6:.3f} MB" in lines
    assert any(line.startswith("Convolution 53 ") for line in lines)


def test_inspect_counts_the_groups_of_every_method(capsys):
    lines = inspect(capsys, "resnet50", devices=TWO_CPUS, coarsening="colocation", max_groups=9)
    graph = read_graph(load_model("resnet50"), TWO_CPUS)
    for method in ("none", "colocation", "fusion"):
        coarse = coarsen(graph, method)
        assert f"{method} {coarse.num_groups} {coarse.num_edges}" in lines
    assert any(line.startswith("colocation, at most 9 9 ") for line in lines)
    assert "Largest groups of 'colocation'" in lines


def test_inspect_lists_support(capsys):
    lines = inspect(capsys, "diamond", devices=TWO_CPUS)
    assert "CPU 9/9 none" in lines
    assert "CPU_F32:INFERENCE_PRECISION_HINT=f32 9/9 none" in lines


def test_inspect_takes_shapes(capsys):
    lines = inspect(capsys, "diamond", devices="CPU", input_shapes="x=4,64")
    assert "input x [4,64] f32" in lines
    assert f"hash {model_hash(load_model('diamond', input_shapes={'x': [4, 64]}))}" in lines


@pytest.mark.parametrize("coarsening", ["fusion", "none"])
def test_inspect_shows_states_and_dynamic_shapes(capsys, tmp_path, coarsening):
    path = tmp_path / "decoder.xml"
    ov.save_model(decoder(), path)
    lines = inspect(capsys, str(path), devices="CPU", coarsening=coarsening)
    coarse = coarsen(read_graph(load_model(path), "CPU"), coarsening)
    start = lines.index("Ops that must stay together")
    for layer, line in enumerate(lines[start + 2 : start + 4]):
        (one,) = [tied for tied in coarse.graph.tied if f"key{layer}" in tied.variables]
        title = f"state 'key{layer}', 'value{layer}' and dynamic shapes"
        assert line.startswith(f"{title} {coarse.op_group[one.ops[0]]} {len(one.ops)} op")
        assert "ReadValue" in line
    assert "Bytes and FLOPs of dynamic shapes are upper bounds." in lines
    assert any("tensors without a bound" in line for line in lines)


def test_inspect_shows_outputs_of_dynamic_shape(capsys, tmp_path):
    ov.save_model(detector(), tmp_path / "detector.xml")
    lines = inspect(capsys, str(tmp_path / "detector.xml"), devices="CPU")
    assert any(line.startswith("output ") and "[1,..15,4] f32" in line for line in lines)
    assert not any("without a bound" in line for line in lines)
    assert "Ops that must stay together" not in inspect(capsys, "diamond", devices="CPU")


@pytest.mark.parametrize("name", FILES)
def test_inspect_describes_files_of_others(capsys, name):
    exact = "CPU:INFERENCE_PRECISION_HINT=f32,CPU_F32:INFERENCE_PRECISION_HINT=f32"
    path, shapes = str(FILES[name]), shapes_text(name)
    lines = inspect(capsys, path, devices=exact, input_shapes=shapes)
    assert lines[0] == f"model {name}"
    flops, weights = (
        next(float(line.split()[1]) for line in lines if line.startswith(word))
        for word in ("MFLOPs", "weights")
    )
    assert flops > 0
    assert weights > 0
    assert sum(line.startswith("state ") for line in lines[:12]) == STATES.get(name, 0)
    start = lines.index("Types of weights and other constants")
    is_small = lines[start + 2].split()[0] in ("i8", "u8", "i4", "u4")
    assert is_small == (name in QUANTISED)
    start = lines.index("Precision of the layers that run")
    rows = [line.split() for line in lines[start + 2 : lines.index("", start)]]
    found = {row[0]: [one[1] for one in rows if one[0] == row[0]] for row in rows}
    assert set(found) == {"CPU", "CPU_F32"}
    assert all(set(several) & {"f32", "u8", "i8"} for several in found.values())
    assert not any("bf16" in several for several in found.values())
    dynamic = "Bytes and FLOPs of dynamic shapes are upper bounds." in lines
    assert dynamic == (name in ("kv_cache_decoder", "detector_nms", "tokenizer"))
    assert any(line.startswith("fusion ") and int(line.split()[1]) > 2 for line in lines)


def test_inspect_names_the_first_of_many_states_and_types(capsys, tmp_path):
    ov.save_model(decoder(layers=3), tmp_path / "decoder.xml")
    lines = inspect(capsys, str(tmp_path / "decoder.xml"), devices="CPU")
    assert sum(line.startswith("state ") for line in lines) >= 4
    assert "... 2 more states" in lines


def test_inspect_names_two_of_the_states_that_are_tied(capsys):
    name = "kv_cache_decoder"
    lines = inspect(capsys, str(FILES[name]), devices="CPU", input_shapes=shapes_text(name))
    (line,) = [line for line in lines[lines.index("Ops that must stay together") :]
               if line.startswith("state ")]  # fmt: skip
    assert "', 2 more and dynamic shapes" in line
    assert line.endswith(" more")
    assert len(line) < 300


def test_inspect_has_defaults(capsys):
    assert "Support" in inspect(capsys, "diamond")


@pytest.mark.parametrize(
    ("config", "error"),
    [
        (InspectConfig("resnet51"), ModelError),
        (InspectConfig("diamond", devices="TPU"), DeviceError),
        (InspectConfig("diamond", devices="CPU", coarsening="fussion"), DevicePlacementError),
        (InspectConfig("diamond", devices="CPU", input_shapes="y=1,64"), ModelError),
    ],
)
def test_wrong_inputs_raise_our_errors(config, error):
    with pytest.raises(error):
        inspect_model(config)
