"""Compile a model and time it, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov

from device_placement.envs.errors import choose
from device_placement.envs.execution.timing import Timing

# OpenVINO's performance hint of each objective.
HINTS = {"latency": "LATENCY", "throughput": "THROUGHPUT"}
QUEUE_ROUNDS = 4  # inferences per request in one sample of the throughput
SUBGRAPHS = "HETERO_NUMBER_OF_SUBMODELS"  # a property of models that HETERO compiled


@dataclass(frozen=True)
class Program:
    """A compiled model with its inputs, ready to be run again and again."""

    compiled: ov.CompiledModel
    sample: Callable[[], float]  # one timed run: seconds per inference
    compile_s: float


def build_program(
    core: ov.Core, model: ov.Model, device_name: str, objective: str = "latency"
) -> Program:
    """Compile a model for an objective and give it seeded inputs.

    Args:
        core: knows the devices.
        model: of static shapes; with affinities when `device_name` is a HETERO one.
        device_name: what ``compile_model`` takes.
        objective: ``latency`` times one request at a time, ``throughput`` keeps as many
            in flight as OpenVINO finds best and divides the time by the inferences.

    Raises:
        RuntimeError: whatever OpenVINO says when it can't compile the model.
        DevicePlacementError: on an unknown objective.
    """
    hint = choose("objective", objective, HINTS)
    start = time.perf_counter()
    compiled = core.compile_model(model, device_name, {"PERFORMANCE_HINT": hint})
    compile_s = time.perf_counter() - start
    inputs = seeded_inputs(compiled)
    sampler = _latency_sampler if objective == "latency" else _throughput_sampler
    return Program(compiled, sampler(compiled, inputs), compile_s)


def take_samples(program: Program, timing: Timing) -> tuple[float, ...]:
    """Warm up, then time repeated runs; (num_samples,) in seconds per inference.

    Raises:
        RuntimeError: whatever OpenVINO says when a run fails.
    """
    start = time.perf_counter()
    for _ in range(timing.warmup):
        program.sample()
    samples = [program.sample()]
    while len(samples) < timing.repeats and time.perf_counter() - start < timing.max_seconds:
        samples.append(program.sample())
    return tuple(samples)


def seeded_inputs(model: Any, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """An input for each port of a model or compiled model, the same for the same seed.

    Standard normal where the type is a floating-point one; 0 or 1 elsewhere, which is a
    legal index, mask or flag of almost every model.
    """
    generator = np.random.default_rng(seed)
    return [_seeded_input(port, generator) for port in model.inputs]


def count_subgraphs(compiled: ov.CompiledModel) -> int:
    """How many pieces HETERO cut a compiled model into; 1 for a model that it did not see."""
    if SUBGRAPHS not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return 1
    return int(compiled.get_property(SUBGRAPHS))


def _seeded_input(port: Any, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    shape, kind = tuple(port.get_shape()), port.get_element_type()
    values: Any = generator.integers(0, 2, shape)
    if kind.is_real():
        values = generator.standard_normal(shape, dtype=np.float32)
    return np.asarray(values, dtype=kind.to_dtype())


def _latency_sampler(compiled: ov.CompiledModel, inputs: Sequence[Any]) -> Callable[[], float]:
    request = compiled.create_infer_request()
    for index, value in enumerate(inputs):
        request.set_input_tensor(index, ov.Tensor(value))

    def sample() -> float:
        start = time.perf_counter()
        request.infer()
        return time.perf_counter() - start

    return sample


def _throughput_sampler(compiled: ov.CompiledModel, inputs: Sequence[Any]) -> Callable[[], float]:
    queue = ov.AsyncInferQueue(compiled)
    tensors = dict(enumerate(inputs))
    for request in queue:
        request.infer(tensors)

    def sample() -> float:
        inferences = QUEUE_ROUNDS * len(queue)
        start = time.perf_counter()
        for _ in range(inferences):
            queue.start_async()
        queue.wait_all()
        return (time.perf_counter() - start) / inferences

    return sample
