"""Files as other tools make them load, split and compute what OpenVINO computes of the file."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import openvino as ov
import pytest

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs import Placement, coarsen, load_model, make_core, parse_devices
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.graph.precision import layer_types, weight_types
from device_placement.envs.measuring.inputs import read_inputs
from device_placement.envs.measuring.verification import output_difference
from device_placement.envs.models.deciding_inputs import deciding_inputs
from others import FILES, INPUTS, QUANTISED, SHAPES, STATES

F32 = {"INFERENCE_PRECISION_HINT": "f32"}
DEVICES = parse_devices("CPU:INFERENCE_PRECISION_HINT=f32,CPU_F32:INFERENCE_PRECISION_HINT=f32")
CORE = make_core(DEVICES)
STEPS = {"lstm_state": 3}  # runs in a row, between which the state is kept
ROUNDED = 0.02  # where int8 rounds another way because the cut broke a fusion


@functools.cache
def loaded(name: str) -> ov.Model:
    return load_model(FILES[name], input_shapes=SHAPES.get(name))


@functools.cache
def tensors(name: str) -> list[ov.Tensor]:
    model = loaded(name)
    return read_inputs(model, INPUTS.get(name)).tensors(model)[0]


def outputs(name: str, compiled: ov.CompiledModel) -> list[Any]:
    request, found = compiled.create_infer_request(), []
    for _ in range(STEPS.get(name, 1)):
        request.infer(dict(enumerate(tensors(name))))
        for tensor in request.output_tensors:
            is_text = tensor.get_element_type() == ov.Type.string
            found.append(np.array(tensor.str_data if is_text else tensor.data))
    return found


@functools.cache
def of_the_file(name: str) -> ov.CompiledModel:
    return ov.Core().compile_model(FILES[name], "CPU", F32)


def heavy_layers(compiled: ov.CompiledModel) -> dict[str, int]:
    """The number of layers with many products, by their precision."""
    heavy = ("Convolution", "FullyConnected", "MatMul")
    found = {
        precision: sum(kinds.get(kind, 0) for kind in heavy)
        for precision, kinds in layer_types(compiled).items()
    }
    return {precision: number for precision, number in found.items() if number}


def test_there_are_twelve() -> None:
    assert len(FILES) == 12
    assert all(path.stat().st_size < 300_000 for path in FILES.values())


@pytest.mark.parametrize("name", FILES)
def test_random_splits_return_the_outputs_of_the_file(name: str) -> None:
    expected = outputs(name, of_the_file(name))
    model, limit = loaded(name), ROUNDED if name in QUANTISED else 1e-4
    found = outputs(name, CORE.compile_model(model, "CPU"))
    assert output_difference(found, expected)[0] <= 1e-4
    graph = read_graph(model, DEVICES, CORE)
    generator = np.random.default_rng(0)
    for method in ("fusion", "fusion", "none"):
        coarse = coarsen(graph, method)
        assert coarse.num_groups > 2
        assignment = random_assignment(coarse, generator)
        placement = Placement.from_groups(coarse, DEVICES, assignment)
        compiled = CORE.compile_model(placement.apply(model), placement.hetero_name)
        assert output_difference(outputs(name, compiled), expected)[0] <= limit


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised_files_stay_quantised(name: str) -> None:
    compiled = CORE.compile_model(loaded(name), "CPU")
    assert heavy_layers(compiled) == heavy_layers(of_the_file(name))
    sizes = weight_types(loaded(name))
    assert next(iter(sizes)) in ("i8", "u8", "i4", "u4")
    assert sum(sizes.values()) < 70_000


def test_outputs_are_not_all_alike() -> None:
    for name in FILES:
        for values in outputs(name, of_the_file(name)):
            assert values.size > 1
            assert len(set(values.ravel().tolist())) > 1


def test_a_cache_that_beams_share_decides_nothing() -> None:
    """The size of the cache decides, which `beam_idx` does not change by its values."""
    assert deciding_inputs(loaded("kv_cache_decoder")) == {}
    assert set(deciding_inputs(loaded("if_loop"))) == {"x", "steps"}
    assert deciding_inputs(loaded("detector_nms")) == {"image": ("NonMaxSuppression",)}
    assert deciding_inputs(loaded("tokenizer")) == {"text": ("StringTensorUnpack",)}


@pytest.mark.parametrize("name", FILES)
def test_states_and_names_are_kept(name: str) -> None:
    assert len(loaded(name).get_variables()) == STATES.get(name, 0)
    assert loaded(name).get_friendly_name() == name
