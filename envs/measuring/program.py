"""Programs: compile a model, give it seeded inputs, and time it in this process."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13

from device_placement.envs.errors import choose
from device_placement.envs.measuring.config import HINTS
from device_placement.envs.measuring.timing import Timing, is_hopeless, is_precise, relative_samples

BLOCK_S = 5e-3  # a sample of a faster model is the mean of several runs, together this long
QUEUE_ROUNDS = 4  # inferences per request in one sample of the throughput
SUBGRAPHS = "HETERO_NUMBER_OF_SUBMODELS"  # a property of models that HETERO compiled


@dataclass(frozen=True)
class Program:
    """Compiled model with its inputs, ready to run."""

    compiled: ov.CompiledModel
    inputs: list[ov.Tensor]
    run: Callable[[int], float]  # number of runs in a row -> seconds per inference; resets states
    compile_s: float

    def sample(self, runs: int = 1) -> float:
        """Time one run, or several in a row, and return seconds per inference."""
        return self.run(runs)

    @functools.cached_property
    def outputs(self) -> list[NDArray[Any]]:
        """The model's outputs after a run, each in its own type."""
        request = self.compiled.create_infer_request()
        for index, tensor in enumerate(self.inputs):
            request.set_input_tensor(index, tensor)
        request.infer()
        return [_values(tensor) for tensor in request.output_tensors]


def build_program(
    core: ov.Core,
    model: ov.Model,
    device_name: str,
    objective: str = "latency",
    requests: int = 0,
    like: ov.Model | None = None,
) -> Program:
    """Compile a model for an objective, and return it with seeded inputs.

    Args:
        core: has the devices.
        model: of static inputs; with affinities when `device_name` is a HETERO one.
        device_name: what ``compile_model`` takes.
        objective: ``latency`` times one request at a time, ``throughput`` keeps several in
            flight and divides the time by the inferences.
        requests: how many in flight; 0 leaves it to OpenVINO.
        like: decides the inputs if the model's own shapes are not static: the same model with
            static ones.

    Raises:
        RuntimeError: when OpenVINO can't compile the model.
        DevicePlacementError: on an unknown objective.
    """
    hint = choose("objective", objective, HINTS)
    start = time.perf_counter()
    compiled = core.compile_model(model, device_name, {"PERFORMANCE_HINT": hint})
    compile_s = time.perf_counter() - start
    inputs = seeded_inputs(like or compiled)
    if objective == "latency":
        return Program(compiled, inputs, _latency_runner(compiled, inputs), compile_s)
    return Program(compiled, inputs, _throughput_runner(compiled, inputs, requests), compile_s)


def warm_up(program: Program, runs: int) -> int:
    """Run a few times, and return how many runs make a sample long enough for the clock."""
    times = [program.sample() for _ in range(runs)] or [BLOCK_S]
    return max(1, math.ceil(BLOCK_S / max(times[-1], 1e-9)))


def take_pairs(
    candidate: Program,
    reference: Program | None,
    timing: Timing,
    give_up: float = math.inf,
    runs: tuple[int, int] = (1, 1),
) -> tuple[tuple[tuple[float, float], ...], bool]:
    """Time the candidate in turns with the reference until the estimate is good enough.

    Every second pair begins with the reference, so that a steady drift cancels out.

    Args:
        candidate: the program to time, warmed up.
        reference: warmed up; if None, the reference's times are NaN.
        timing: decides when there are enough samples.
        give_up: stop as soon as the candidate is clearly slower, in units of the reference
            (in seconds without one).
        runs: of candidate and reference in one sample.

    Returns:
        (num_samples, 2) seconds per inference, and whether it was stopped early.

    Raises:
        RuntimeError: when a run fails.
    """
    pairs: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(pairs) < timing.max_samples:
        if pairs and time.perf_counter() - start > timing.max_seconds:
            break
        pairs.append(_take_pair(candidate, reference, runs, swap=len(pairs) % 2 == 1))
        values = relative_samples(pairs).tolist()
        if is_hopeless(values, give_up):
            return tuple(pairs), True
        if is_precise(values, timing):
            break
    return tuple(pairs), False


def _take_pair(
    candidate: Program, reference: Program | None, runs: tuple[int, int], swap: bool
) -> tuple[float, float]:
    if reference is None:
        return candidate.sample(runs[0]), math.nan
    if swap:
        reference_s = reference.sample(runs[1])
        return candidate.sample(runs[0]), reference_s
    return candidate.sample(runs[0]), reference.sample(runs[1])


def _values(tensor: ov.Tensor) -> NDArray[Any]:
    """Return a copy of what a tensor holds; bf16, which NumPy lacks, as f32."""
    kind = tensor.get_element_type()
    if kind == ov.Type.string:
        return np.array(tensor.str_data)
    if kind == ov.Type.bf16:
        return np.asarray((tensor.data.view(np.uint16).astype(np.uint32) << 16).view(np.float32))
    return np.array(tensor.data)


def seeded_inputs(model: Any, seed: int = 0) -> list[ov.Tensor]:
    """Return an input for each port of a model or compiled model, equal for equal seeds.

    Floating-point inputs are standard normal; others are 0 or 1, which is a legal index,
    mask or flag of almost every model.
    """
    generator = np.random.default_rng(seed)
    return [_seeded_input(port, generator) for port in model.inputs]


def count_subgraphs(compiled: ov.CompiledModel) -> int:
    """Return the number of pieces that HETERO cut a model into; 1 if it was not used."""
    if SUBGRAPHS not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return 1
    return int(compiled.get_property(SUBGRAPHS))


def _seeded_input(port: Any, generator: np.random.Generator) -> ov.Tensor:
    shape, kind = tuple(port.get_shape()), port.get_element_type()
    values: Any = generator.integers(0, 2, shape)
    if kind.is_real():
        values = generator.standard_normal(shape, dtype=np.float32)
    if kind == ov.Type.string:
        return ov.Tensor(np.array(values, dtype=np.str_))
    if kind in _OWN_TYPES:
        tensor = ov.Tensor(kind, ov.Shape(shape))
        constant = opset13.constant(np.asarray(values, np.float32), dtype=kind)  # owns its memory
        constant.get_tensor_view().copy_to(tensor)
        return tensor
    return ov.Tensor(np.asarray(values, dtype=kind.to_dtype()))


_OWN_TYPES = (ov.Type.bf16, ov.Type.f8e4m3, ov.Type.f8e5m2, ov.Type.u4, ov.Type.i4)
"""Types that NumPy lacks; OpenVINO rounds to them."""


def _latency_runner(compiled: ov.CompiledModel, inputs: Sequence[Any]) -> Callable[[int], float]:
    request = compiled.create_infer_request()
    for index, value in enumerate(inputs):
        request.set_input_tensor(index, value)

    def run(runs: int) -> float:
        start = time.perf_counter()
        for _ in range(runs):
            request.infer()
        return (time.perf_counter() - start) / runs

    def run_from_reset(runs: int) -> float:
        taken_s = 0.0
        for _ in range(runs):
            request.reset_state()
            start = time.perf_counter()
            request.infer()
            taken_s += time.perf_counter() - start
        return taken_s / runs

    return run_from_reset if request.query_state() else run


def _throughput_runner(
    compiled: ov.CompiledModel, inputs: Sequence[Any], requests: int
) -> Callable[[int], float]:
    queue = ov.AsyncInferQueue(compiled, requests)
    tensors = dict(enumerate(inputs))
    for request in queue:
        request.infer(tensors)

    stateful = bool(queue[0].query_state())

    def run(runs: int) -> float:
        inferences = runs * QUEUE_ROUNDS * len(queue)
        start = time.perf_counter()
        for _ in range(inferences):
            if stateful:
                queue[queue.get_idle_request_id()].reset_state()
            queue.start_async()
        queue.wait_all()
        return (time.perf_counter() - start) / inferences

    return run
