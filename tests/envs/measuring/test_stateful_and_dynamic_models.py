"""Models with states, or with shapes that depend on the data, run wherever they are placed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs import (
    OpenVINOEvaluator,
    Placement,
    coarsen,
    load_model,
    make_core,
    parse_devices,
    read_graph,
)
from device_placement.envs.graph.components import components
from device_placement.envs.graph.computation_graph import read_edges
from device_placement.envs.graph.subgraphs import spell_devices
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.program import build_program
from device_placement.envs.measuring.verification import output_difference
from device_placement.envs.profiling.op_times import measure_op_times
from stateful_models import DYNAMIC, STATEFUL, decoder, detector, recurrent

DEVICES = parse_devices("CPU:INFERENCE_PRECISION_HINT=f32,CPU_B:INFERENCE_PRECISION_HINT=f32")
CORE = make_core(DEVICES)
STEPS = 3  # runs in a row, from a state that is reset


def outputs(model: ov.Model, device_name: str) -> list[Any]:
    """The outputs of several runs, between which states are kept."""
    compiled = CORE.compile_model(model, device_name)
    request = compiled.create_infer_request()
    found = []
    for step in range(STEPS):
        (sample,) = invented_inputs(model, step).tensors(compiled)
        request.infer(dict(enumerate(sample)))
        found += [np.array(tensor.data) for tensor in request.output_tensors]
    return found


@pytest.mark.parametrize("build", [*STATEFUL, *DYNAMIC], ids=lambda build: build.__name__)
def test_random_placements_compute_what_the_whole_model_does(
    build: Callable[[], ov.Model],
) -> None:
    model = load_model(build())
    graph = read_graph(model, DEVICES, CORE)
    expected = outputs(model, "CPU")
    generator = np.random.default_rng(0)
    for method in ("fusion", "none"):
        coarse = coarsen(graph, method)
        for _ in range(2):
            assignment = generator.integers(0, 2, coarse.num_groups).tolist()
            placement = Placement.from_groups(coarse, DEVICES, assignment)
            found = outputs(placement.apply(model), placement.hetero_name)
            assert output_difference(found, expected)[0] < 1e-4


MODELS = {build: load_model(build()) for build in STATEFUL}
GRAPHS = {build: read_graph(model, DEVICES, CORE) for build, model in MODELS.items()}


@settings(max_examples=60)
@given(st.sampled_from(STATEFUL), st.randoms(use_true_random=False))
def test_hetero_meets_no_cycle_through_tied_ops(build: Callable[[], ov.Model], draw: Any) -> None:
    model, graph = MODELS[build], GRAPHS[build]
    coarse = coarsen(graph, "none")
    groups = [draw.randrange(2) for _ in range(coarse.num_groups)]
    given_names = {
        name: DEVICES[groups[group]].name
        for name, group in zip(graph.op_names, coarse.op_group.tolist(), strict=True)
    }
    spelled = spell_devices(model, given_names)
    assert {name: spelled[name].strip("-.") for name in spelled} == given_names
    edges = read_edges(model.get_ordered_ops())[:2]
    name = np.array([spelled[op] for op in graph.op_names])
    results = np.array([kind == "Result" for kind in graph.op_types])[edges[1]]
    inner = (name[edges[0]] == name[edges[1]]) | results
    piece = components(graph.num_ops, edges[:, inner], "weak")
    ring = components(int(piece.max()) + 1, piece[edges], "strong")
    for one in graph.tied:
        (number,) = set(piece[list(one.ops)].tolist())
        assert (ring == ring[number]).sum() == 1


def test_placements_without_tied_ops_keep_their_devices_names() -> None:
    model = load_model("diamond")
    kinds = {op.get_friendly_name(): op.get_type_name() for op in model.get_ops()}
    devices = {name: "CPU_B" if kind == "MatMul" else "CPU" for name, kind in kinds.items()}
    assert spell_devices(model, devices) == devices


def grows_once() -> ov.Model:
    """A cache that may hold one element: a second run without a reset fails."""
    x = ops.parameter([1, 4], np.float32, name="x")
    empty = ops.constant(np.zeros((0, 4), np.float32))
    past = ops.read_value(empty, "cache", np.float32, ov.PartialShape([-1, 4]))
    whole = ops.concat([past, x], 0)
    fixed = ops.reshape(whole, ops.constant(np.array([1, 4])), False)
    return ov.Model([ops.result(ops.exp(fixed))], [ops.assign(whole, "cache")], [x], "grows")


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_every_timed_run_starts_from_a_state_that_is_reset(objective: str) -> None:
    program = build_program(CORE, load_model(grows_once()), "CPU", objective, requests=2)
    assert program.sample(3) > 0
    assert program.sample(2) > 0


def test_the_profiler_resets_states() -> None:
    model = load_model(grows_once())
    graph = read_graph(model, DEVICES, CORE)
    assert np.isfinite(measure_op_times(CORE, model, graph, DEVICES, 0)).all()


@pytest.mark.filterwarnings("ignore::device_placement.envs.InventedInputsWarning")
@pytest.mark.parametrize("build", [decoder, detector], ids=lambda build: build.__name__)
def test_an_evaluator_times_and_verifies_them(build: Callable[[], ov.Model]) -> None:
    model = load_model(build())
    coarse = coarsen(read_graph(model, DEVICES, CORE), "fusion")
    evaluator = OpenVINOEvaluator(
        model, coarse, DEVICES, core=CORE, store=None, isolation="none", timing="plain",
        max_samples=2, max_output_error=1e-3,
    )  # fmt: skip
    found = evaluator.evaluate([group % 2 for group in range(coarse.num_groups)])
    evaluator.close()
    assert found.valid, found.error
    assert found.output_error < 1e-3


def test_outputs_of_other_shapes_differ() -> None:
    boxes = np.ones((1, 3, 4))
    assert output_difference([boxes], [boxes[:, :2]]) == (math.inf, -1.0)
    assert output_difference([boxes[:, :0]], [boxes[:, :0]]) == (0.0, 1.0)


def test_states_do_not_leak_between_the_candidate_and_the_reference() -> None:
    model = load_model(recurrent())
    program, other = (build_program(CORE, model, "CPU") for _ in range(2))
    program.sample(5)
    assert output_difference(program.outputs, other.outputs)[0] == 0.0
