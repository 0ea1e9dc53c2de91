"""Outputs of the data-flow executor: those of the whole model, whatever is asked of it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from dataflow_models import (
    APART,
    DEVICES,
    ONE,
    OTHER,
    core,
    expected_towers,
    named,
    placed,
    reference,
    towers,
)
from device_placement.envs import Placement, coarsen, load_model, read_graph
from device_placement.envs.executors import dataflow
from device_placement.envs.executors.dataflow import (
    CALIBRATIONS,
    DataflowError,
    DataflowModel,
    DeviceThreads,
    Region,
    RegionCache,
    cut_model,
    make_tensor,
    read_tensor,
)
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.measuring.inputs import invented_inputs
from device_placement.envs.measuring.verification import ERROR_FLOOR, output_difference
from device_placement.envs.models.normalisation import normalise
from others import FILES, INPUTS, SHAPES


def arrays_for(model: ov.Model, name: str, seed: int) -> list[Any]:
    if given := INPUTS.get(name):
        kinds = [port.get_element_type().to_dtype() for port in model.inputs]
        return [np.asarray(one, kind) for one, kind in zip(given.values(), kinds, strict=True)]
    (sample,) = invented_inputs(model, seed).tensors(model)
    return [read_tensor(tensor) for tensor in sample]


@pytest.mark.parametrize(
    ("name", "num_placements", "together"),
    [
        ("diamond", 3, 1),
        ("resnet50", 1, 15),  # many regions take long to compile
        ("string_labels", 2, 1),
        ("if_loop", 2, 1),
        ("vit", 1, 4),
        ("nncf_int8", 1, 1),
    ],
)
def test_outputs_are_those_of_hetero(name: str, num_placements: int, together: int) -> None:
    path = str(FILES[name]) if name in FILES else name
    model = load_model(path, input_shapes=SHAPES.get(name))
    coarse = coarsen(read_graph(model, DEVICES, core()))
    rng = np.random.default_rng(0)
    inputs = [arrays_for(model, name, seed) for seed in range(3)]
    for _ in range(num_placements):
        assignment = np.repeat(rng.integers(0, 2, coarse.num_groups), together)[: coarse.num_groups]
        placement = Placement.from_groups(coarse, DEVICES, assignment, "dataflow")
        hetero = placement.compile(model, "hetero", core())
        expected = [hetero.infer(one) for one in inputs]
        with placement.compile(model, core=core(), requests=3) as compiled:
            assert isinstance(compiled, DataflowModel)
            in_turn = [compiled.infer(one) for one in inputs]
            at_once = [compiled.start_async(one) for one in inputs]
            for found in (in_turn, [one.wait() for one in at_once]):
                for outputs, wanted in zip(found, expected, strict=True):
                    assert output_difference(outputs, wanted)[0] <= ERROR_FLOOR
                    kinds = [[one.dtype for one in outputs], [one.dtype for one in wanted]]
                    assert kinds[0] == kinds[1]


def everything() -> ov.Model:
    """Inputs and constants that are outputs, a tensor with many readers, an op with two outputs."""
    x = ops.parameter([2, 4], np.float32, name="x")
    straight = ops.parameter([3], np.int64, name="straight")
    empty = ops.parameter([0, 4], np.float32, name="empty")
    constant = ops.constant(np.array([5.0, 6.0], np.float32))
    weights = ops.constant(np.arange(4, dtype=np.float32))
    read = named(ops.add(x, weights), "read")
    relu, negative = named(ops.relu(read), "relu"), named(ops.negative(read), "negative")
    exp = named(ops.exp(ops.multiply(read, weights)), "exp")
    split = named(ops.split(read, ops.constant(np.int64(0)), 2), "split")
    first = named(ops.multiply(split.output(0), weights), "first")
    last = named(ops.subtract(split.output(1), first), "last")
    nothing = named(ops.relu(empty), "nothing")
    folded = named(ops.sqrt(ops.constant(np.array([4.0], np.float32))), "folded")
    sources = [
        *(read, relu, negative, exp, last, split.output(0), nothing),
        *(straight, constant, folded, read, x),
    ]
    return ov.Model([ops.result(one) for one in sources], [x, straight, empty], "everything")


def inputs_of_everything(seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 4)).astype(np.float32)
    return [x, rng.integers(0, 9, 3), np.zeros((0, 4), np.float32)]


def test_odd_inputs_and_outputs_are_right() -> None:
    model = everything()
    working = ["read", "relu", "negative", "exp", "split", "first", "last", "nothing"]
    rng = np.random.default_rng(1)
    for _ in range(4):
        chosen = [name for name in working if rng.integers(2)]
        with placed(model, dict.fromkeys(chosen, OTHER), requests=2) as compiled:
            for seed in range(3):
                inputs = inputs_of_everything(seed)
                flights = [compiled.start_async(inputs), compiled.start_async(inputs)]
                for outputs in (flight.wait() for flight in flights):
                    for one, wanted in zip(outputs, reference(model, inputs), strict=True):
                        np.testing.assert_allclose(one, wanted, rtol=1e-5)
                        assert one.dtype == wanted.dtype


def test_a_tensor_is_cut_once_for_all_its_readers() -> None:
    model = everything()
    devices = dict.fromkeys(names_of(model), ONE) | {"relu": OTHER, "negative": OTHER, "exp": OTHER}
    regions = plan_regions(model, devices)
    cut = cut_model(model.clone(), regions)
    makers = [n for n, piece in enumerate(cut.pieces) if ("read", 0) in piece.outputs]
    readers = [piece for piece in cut.pieces if ("read", 0) in piece.inputs]
    assert len(makers) == 1
    assert len(readers) >= 3
    assert all(len(set(piece.inputs)) == len(piece.inputs) for piece in cut.pieces)
    assert list(cut.constants) == [cut.outputs[8], cut.outputs[9]]


def test_a_model_without_work_needs_no_region() -> None:
    x = ops.parameter([2], np.float32, name="x")
    with placed(ov.Model([ops.result(x)], [x], "idle")) as compiled:
        assert compiled.num_regions == 0
        for value in (1, 2):
            given = np.full(2, value, np.float32)
            np.testing.assert_array_equal(compiled.infer([given])[0], given)


def test_texts_go_in_and_come_out() -> None:
    x = ops.parameter([2], ov.Type.string, name="x")
    index = ops.parameter([1], np.int64, name="index")
    picked = named(ops.gather(x, index, ops.constant(np.int64(0))), "picked")
    again = named(
        ops.gather(picked, ops.constant(np.array([0, 0])), ops.constant(np.int64(0))), "again"
    )
    model = ov.Model([ops.result(again), ops.result(picked)], [x, index], "texts")
    for devices in ({}, {"again": OTHER}):
        with placed(model, devices) as compiled:
            for texts in (["one", "two words"], ["", "é"]):
                outputs = compiled.infer({"x": np.array(texts), "index": np.array([1])})
                assert [one.tolist() for one in outputs] == [[texts[1]] * 2, [texts[1]]]
            with pytest.raises(ValueError, match=r"array of int64 for the input 'x'; give texts"):
                compiled.infer([np.array([1, 2]), np.array([1])])


def three_inputs() -> ov.Model:
    ports = [ops.parameter([2], np.float32, name=name) for name in "abc"]
    end = ops.add(ops.multiply(ports[0], ops.constant(np.float32(10))), ports[1])
    model = ov.Model([ops.result(ops.subtract(end, ports[2]))], ports, "three")
    for port, name in zip(model.inputs, "abc", strict=True):
        port.get_tensor().set_names({name, f"{name}:0"})
    return model


ONES = {name: np.full(2, value, np.float32) for name, value in zip("abc", (1, 2, 3), strict=True)}


@pytest.mark.parametrize("executor", ["dataflow", "hetero"])
def test_inputs_are_given_by_order_number_name_or_port(executor: str) -> None:
    with compiled_three(executor) as compiled:
        for inputs in (
            list(ONES.values()),
            tuple(ONES.values()),
            dict(enumerate(ONES.values())),
            {np.int64(number): value for number, value in enumerate(ONES.values())},
            dict(reversed(ONES.items())),
            {f"{name}:0": value for name, value in ONES.items()},
            {0: ONES["a"], "b": ONES["b"], "c:0": ONES["c"]},
        ):
            assert compiled.infer(inputs)[0].tolist() == [9, 9]  # type: ignore[arg-type]


@pytest.mark.parametrize("executor", ["dataflow", "hetero"])
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([ONES["a"]], r"Got 1 inputs; the model has 3: 'a.*', 'b.*', 'c.*'\."),
        (ONES["a"], r"Got 1 inputs; the model has 3"),
        ({}, r"Got no 'a.*', 'b.*', 'c.*'; give all inputs of the model: 'a"),
        ({0: ONES["a"], "c": ONES["c"]}, r"Got no 'b.*'; give all inputs"),
        (ONES | {"d": ONES["a"]}, r"Unknown input 'd'; the model has: 'a"),
        (ONES | {3: ONES["a"]}, r"Unknown input 3; the model has: 'a"),
        (ONES | {0: ONES["a"]}, r"Got the input 'a.*' twice; give it once\."),
        (ONES | {"a": np.zeros(3, np.float32)}, r"shape \(3,\) for the input 'a.*shape \(2,\)"),
        (ONES | {"a": np.float32(1)}, r"shape \(\) for the input 'a.*shape \(2,\)"),
        (ONES | {"b": np.zeros(2)}, r"array of float64 for the input 'b.*'; give float32\."),
        (ONES | {"b": np.array(["x", "y"])}, r"array of <U1 for the input 'b.*'; give float32\."),
    ],
)
def test_wrong_inputs_are_refused_and_do_no_harm(executor: str, inputs: Any, message: str) -> None:
    with compiled_three(executor) as compiled:
        with pytest.raises(ValueError, match=message):
            compiled.infer(inputs)
        assert compiled.infer(ONES)[0].tolist() == [9, 9]


def compiled_three(executor: str) -> Any:
    model = normalise(three_inputs())
    coarse = coarsen(read_graph(model, DEVICES, core()), "none")
    assignment = [number % 2 for number in range(coarse.num_groups)]
    placement = Placement.from_groups(coarse, DEVICES, assignment)
    return placement.compile(model, executor, core())


def test_a_request_takes_tensors_without_copying_them() -> None:
    with placed(towers(), APART) as compiled:
        request = compiled.create_infer_request()
        shared = ov.Tensor(np.ones((1, 8), np.float32))
        request.set_input_tensor(0, shared)
        request.infer()
        assert (read_tensor(request.output_tensors[0]) == 4).all()
        shared.data[...] = 2
        request.infer()
        assert (read_tensor(request.output_tensors[0]) == 7).all()
        for wrong in (np.ones((1, 9), np.float32), np.ones((1, 8), np.float64)):
            with pytest.raises(ValueError, match=r"Got a tensor of .* for the input 'x'; give"):
                request.set_input_tensor(0, ov.Tensor(wrong))
        request.infer()
        assert (read_tensor(request.output_tensors[0]) == 7).all()


def test_outputs_are_copies() -> None:
    with placed(towers(), APART) as compiled:
        first = compiled.infer([np.ones((1, 8), np.float32)])
        compiled.infer([np.zeros((1, 8), np.float32)])
        assert (first[0] == 4).all()


def test_no_value_is_wrong_in_hundreds_of_inferences_of_several_threads() -> None:
    with placed(towers(), APART, requests=2) as compiled:

        def run(seed: int) -> None:
            rng = np.random.default_rng(seed)
            for _ in range(150):
                x = rng.standard_normal((1, 8)).astype(np.float32)
                np.testing.assert_array_equal(compiled.infer([x])[0], expected_towers(x))

        run(0)
        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(run, seed) for seed in range(1, 5)]:
                done.result()


def test_models_of_one_device_thread_keep_their_values_apart() -> None:
    with DeviceThreads() as threads, ThreadPoolExecutor(2) as pool:
        models = [placed(towers(width), APART, threads=threads) for width in (8, 5)]

        def run(number: int) -> None:
            for value in range(100):
                x = np.full(tuple(models[number].inputs[0].shape), value - 50, np.float32)
                np.testing.assert_array_equal(models[number].infer([x])[0], expected_towers(x))

        for done in [pool.submit(run, number) for number in (0, 1)]:
            done.result()


def test_the_timeline_shows_each_region_once_after_those_it_needs() -> None:
    with placed(towers(), APART) as compiled:
        request = compiled.create_infer_request()
        request.set_inputs([np.ones((1, 8), np.float32)])
        for _ in range(CALIBRATIONS):
            assert not compiled.compiled.is_calibrated
            request.infer()
        assert compiled.compiled.is_calibrated
        runs = {run.region: run for run in request.timeline}
        assert sorted(runs) == list(range(compiled.num_regions)) == [0, 1, 2]
        for number, sources in enumerate(compiled.compiled.sources):
            assert runs[number].device == compiled.regions[number].device
            assert runs[number].start_s <= runs[number].end_s
            assert all(runs[one].end_s <= runs[number].start_s for one in sources)
        assert runs[2].cpu_s >= 0


def test_the_longest_remaining_path_is_the_most_urgent() -> None:
    with placed(towers(), APART) as compiled:
        compiled.compiled.learn([1.0, 5.0, 2.0])
        assert compiled.compiled.urgency == [3.0, 7.0, 2.0]
        compiled.compiled.learn([0.5, 6.0, 2.0])  # the shortest counts
        assert compiled.compiled.urgency == [2.5, 7.0, 2.0]
        compiled.compiled.learn([1.0, 1.0, 1.0])
        compiled.compiled.learn([0.0, 0.0, 0.0])  # too late
        assert compiled.compiled.urgency == [1.5, 2.0, 1.0]


def test_a_thread_prefers_the_oldest_inference_and_then_what_is_urgent() -> None:
    order: list[str] = []
    begin = threading.Event()
    with DeviceThreads() as threads:
        threads[ONE].push(0, 0.0, lambda: bool(begin.wait()))  # until all are there
        for number, urgency in ((2, 9.0), (1, 1.0), (1, 5.0), (1, 1.0)):
            label = f"{number}:{urgency}:{len(order)}"
            threads[ONE].push(number, urgency, lambda label=label: order.append(label))
        done = threads[ONE].submit(lambda: order.append("first"))
        begin.set()
        done.result()
    assert order == ["first", "1:5.0:0", "1:1.0:0", "1:1.0:0", "2:9.0:0"]


def test_a_region_cache_keeps_the_most_recent_within_its_limits() -> None:
    compiled: Sequence[Any] = [object() for _ in range(5)]
    regions = [Region(ONE, (str(number),)) for number in range(5)]
    cache = RegionCache(max_regions=3, max_bytes=100)
    for number in (0, 1, 2):
        cache.add(regions[number], compiled[number], 10)
    assert cache.get(regions[0]) is compiled[0]  # so it is the most recent
    cache.add(regions[3], compiled[3], 10)
    assert [cache.get(one) is not None for one in regions] == [True, False, True, True, False]
    assert (cache.num_hits, cache.num_misses, len(cache)) == (4, 2, 3)
    cache.add(regions[4], compiled[4], 85)  # with any other but one of 10 it is too much
    assert [cache.get(one) is not None for one in regions] == [False, False, False, True, True]
    cache.add(regions[4], compiled[0], 50)  # in place of the older one
    assert cache.get(regions[4]) is compiled[0]
    cache.add(regions[0], compiled[0], 40)
    assert len(cache) == 3
    cache.add(regions[1], compiled[1], 101)  # would push out all others
    assert len(cache) == 3
    cache.clear()
    assert len(cache) == 0
    assert cache.get(regions[4]) is None


def test_a_region_that_is_known_is_not_compiled_again() -> None:
    cache, model = RegionCache(), towers()
    x = np.ones((1, 8), np.float32)
    with DeviceThreads() as threads:
        one = placed(model, APART, threads=threads, cache=cache)
        assert (cache.num_hits, cache.num_misses, len(cache)) == (0, 3, 3)
        again = placed(model, APART, threads=threads, cache=cache)
        assert (cache.num_hits, cache.num_misses) == (3, 3)
        assert all(a is b for a, b in zip(one.compiled.models, again.compiled.models, strict=True))
        other = placed(model, {"left": OTHER, "left2": OTHER}, threads=threads, cache=cache)
        assert (cache.num_hits, cache.num_misses) == (4, 5)  # the sum
        for compiled in (one, again, other):
            np.testing.assert_array_equal(compiled.infer([x])[0], expected_towers(x))


def test_a_tensor_of_dynamic_shape_between_regions_names_its_op() -> None:
    x = ops.parameter([4], np.float32, name="x")
    found = named(ops.non_zero(x, "i64"), "found")
    end = named(ops.convert(found, "f32"), "end")
    model = ov.Model([ops.result(end)], [x], "dynamic")
    with pytest.raises(DataflowError, match=r"op 'found' \(NonZero\) .* dynamic shape \[1,"):
        placed(model, {"end": OTHER})


def test_a_model_is_not_changed_by_cutting_it() -> None:
    model = towers()
    before = names_of(model)
    with placed(model, APART), placed(model, {"sum": OTHER}):
        assert names_of(model) == before
    x = np.ones((1, 8), np.float32)
    np.testing.assert_array_equal(reference(model, [x])[0], expected_towers(x))


def test_tensors_are_where_openvino_puts_them_if_no_device_offers_memory() -> None:
    tensor = make_tensor(core(), [ONE, "NPU"], ov.Type.f32, [2, 3])
    assert (tensor.get_element_type(), list(tensor.shape)) == (ov.Type.f32, [2, 3])


def test_bf16_is_read_as_f32() -> None:
    tensor = ov.Tensor(ov.Type.bf16, [2])
    tensor.data.view(np.uint16)[...] = [0x3F80, 0xC000]
    found = read_tensor(tensor)
    assert found.dtype == np.float32
    assert found.tolist() == [1.0, -2.0]


def test_the_file_needs_only_openvino_and_numpy(tmp_path: Path) -> None:
    """A product may bring it along, without this package."""
    (tmp_path / "dataflow.py").write_bytes(Path(dataflow.__file__).read_bytes())
    model = towers()
    regions = plan_regions(model, dict.fromkeys(names_of(model), "CPU"))
    ov.serialize(model, tmp_path / "towers.xml")
    code = f"""
import sys, numpy, openvino
before = {{name.partition(".")[0] for name in sys.modules}}
sys.path.insert(0, {str(tmp_path)!r})
import dataflow
model = openvino.Core().read_model({str(tmp_path / "towers.xml")!r})
regions = [dataflow.Region("CPU", {regions[0].op_names!r})]
with dataflow.DataflowModel(openvino.Core(), model, regions) as compiled:
    print(compiled.infer([numpy.ones((1, 8), numpy.float32)])[0].sum())
new = {{name.partition(".")[0] for name in sys.modules}} - before
print(sorted(new - {{"__mp_main__", *sys.stdlib_module_names}}))
"""
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["32.0", "['dataflow']"]


def names_of(model: ov.Model) -> list[str]:
    return [op.get_friendly_name() for op in model.get_ordered_ops()]
