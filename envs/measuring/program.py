"""Programs: compile a model, give it inputs, and time it in this process."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from device_placement.envs.errors import choose
from device_placement.envs.executors.dataflow import (
    DataflowModel,
    DataflowRequest,
    DeviceThreads,
    Region,
    RegionCache,
    read_tensor,
)
from device_placement.envs.measuring.config import HINTS
from device_placement.envs.measuring.inputs import Samples, invented_inputs
from device_placement.envs.measuring.timing import (
    Timing,
    is_clearly_slower,
    is_precise,
    relative_samples,
)
from device_placement.envs.measuring.verification import output_difference

BLOCK_S = 5e-3  # a sample of a faster model is the mean of several runs, together this long
REPEATS = 3  # runs that are compared with the first, to see whether they differ
QUEUE_ROUNDS = 4  # inferences per request in one sample of the throughput
MIN_CORE_SHARE = 0.95  # of a device of one core in a pair that counts
MAX_REPEATS = 3  # times that a pair is taken until it counts
SUBGRAPHS = "HETERO_NUMBER_OF_SUBMODELS"  # a property of models that HETERO compiled


@dataclass(frozen=True)
class Program:
    """Compiled model with its inputs, ready to run."""

    compiled: ov.CompiledModel | DataflowModel
    samples: list[list[ov.Tensor]]  # (num_samples, num_inputs)
    run: Callable[[int], float]  # number of runs in a row -> seconds per inference; resets states
    compile_s: float
    stateful: bool = False
    core_share: Callable[[], float] = lambda: 1.0  # since the last call, see `DataflowRequest`

    def sample(self, runs: int = 1) -> float:
        """Time one run, or several in a row, and return seconds per inference."""
        return self.run(runs)

    @functools.cached_property
    def outputs(self) -> list[NDArray[Any]]:
        """The model's outputs for each sample in turn, each in its own type."""
        return self._run_once()

    @functools.cached_property
    def self_difference(self) -> tuple[float, float]:
        """How the outputs of some more runs differ, at most, as `output_difference` says.

        They do where the model draws random numbers.
        """
        found = [output_difference(self._run_once(), self.outputs) for _ in range(REPEATS)]
        return max(error for error, _ in found), min(cosine for _, cosine in found)

    def _run_once(self) -> list[NDArray[Any]]:
        outputs = []
        for sample in self.samples:
            prepare(self._request, sample, self.stateful)
            self._request.infer()
            outputs += [read_tensor(tensor) for tensor in self._request.output_tensors]
        return outputs

    @functools.cached_property
    def _request(self) -> ov.InferRequest | DataflowRequest:
        """The request whose outputs are read; two of them might draw the same random numbers."""
        return self.compiled.create_infer_request()


def prepare(request: Any, sample: Sequence[ov.Tensor], stateful: bool) -> None:
    """Set all input tensors of a request, (num_inputs,), and reset its states, if it has any."""
    if stateful:  # AUTO can't, even where there is nothing to reset
        request.reset_state()
    for index, tensor in enumerate(sample):
        request.set_input_tensor(index, tensor)


def build_program(
    core: ov.Core,
    model: ov.Model,
    device_name: str,
    objective: str = "latency",
    requests: int = 0,
    samples: Samples | None = None,
    like: ov.Model | None = None,
) -> Program:
    """Compile a model for an objective, and return it with its inputs.

    Args:
        core: has the devices.
        model: of static inputs; with affinities when `device_name` is a HETERO one.
        device_name: what ``compile_model`` takes.
        objective: ``latency`` times one request at a time, ``throughput`` keeps several in
            flight and divides the time by the inferences.
        requests: how many in flight; 0 leaves it to OpenVINO.
        samples: of the inputs; invented if None. Several are run in turn.
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
    tensors = (samples or invented_inputs(like or model)).tensors(like or compiled)
    stateful = is_stateful(model)
    if objective == "latency":
        run = _latency_runner(compiled.create_infer_request(), tensors, stateful)
    else:
        run = _throughput_runner(compiled, tensors, requests, stateful)
    return Program(compiled, tensors, run, compile_s, stateful)


def build_dataflow(
    core: ov.Core,
    model: ov.Model,
    regions: Sequence[Region],
    threads: DeviceThreads,
    cache: RegionCache,
    objective: str = "latency",
    requests: int = 0,
    samples: Samples | None = None,
) -> Program:
    """Compile the regions of a model, and return it with its inputs; see `build_program`.

    Args:
        core: has the devices.
        model: of static inputs, without states.
        regions: of its placement.
        threads: of the devices.
        cache: of the model's compiled regions.
        objective: as for `build_program`.
        requests: how many in flight; 0: one more than there are devices.
        samples: of the inputs; invented if None.

    Raises:
        RuntimeError: when the model can't be cut or OpenVINO can't compile a region.
        DevicePlacementError: on an unknown objective.
    """
    choose("objective", objective, HINTS)
    start = time.perf_counter()
    compiled = DataflowModel(core, model, regions, threads=threads, cache=cache)
    compile_s = time.perf_counter() - start
    tensors = (samples or invented_inputs(model)).tensors(model)
    number = 1
    if objective != "latency":
        number = requests or 1 + len({region.device for region in regions})
    pool = [compiled.create_infer_request() for _ in range(number)]
    if objective == "latency":
        run = _latency_runner(pool[0], tensors, stateful=False)
    else:
        run = _pipeline_runner(pool, tensors)
    return Program(
        compiled,
        tensors,
        run,
        compile_s,
        core_share=lambda: min(request.take_core_share() for request in pool),
    )


def is_stateful(model: ov.Model) -> bool:
    """Return whether a model keeps anything from one run to the next."""
    return bool(model.get_variables())


def warm_up(program: Program, runs: int) -> int:
    """Run a few times, and return how many runs make a sample long enough for the clock."""
    times = [program.sample() for _ in range(runs)] or [BLOCK_S]
    return max(1, math.ceil(BLOCK_S / max(times[-1], 1e-9)))


def take_pairs(
    candidate: Program,
    reference: Program | None,
    timing: Timing,
    best: float = math.inf,
    runs: tuple[int, int] = (1, 1),
) -> tuple[tuple[tuple[float, float], ...], bool]:
    """Time the candidate in turns with the reference until the estimate is good enough.

    Every second pair begins with the reference, so that a steady drift cancels out.

    Args:
        candidate: the program to time, warmed up.
        reference: warmed up; if None, the reference's times are NaN.
        timing: decides when there are enough samples.
        best: time to beat, in units of the reference (in seconds without one); sampling stops
            early as soon as the candidate is clearly slower.
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
        if is_precise(values, timing):
            break
        if is_clearly_slower(values, timing, best):
            return tuple(pairs), True
    return tuple(pairs), False


def _take_pair(
    candidate: Program, reference: Program | None, runs: tuple[int, int], swap: bool
) -> tuple[float, float]:
    """Time candidate and reference; again, where a neighbour took part of a device's only core.

    It slows down the program that uses that core, and not the other one, so it does not cancel.
    """
    programs = [candidate] if reference is None else [candidate, reference]
    for _ in range(MAX_REPEATS):
        for one in programs:
            one.core_share()
        pair = _time_both(candidate, reference, runs, swap)
        if min(one.core_share() for one in programs) >= MIN_CORE_SHARE:
            break
    return pair


def _time_both(
    candidate: Program, reference: Program | None, runs: tuple[int, int], swap: bool
) -> tuple[float, float]:
    if reference is None:
        return candidate.sample(runs[0]), math.nan
    if swap:
        reference_s = reference.sample(runs[1])
        return candidate.sample(runs[0]), reference_s
    return candidate.sample(runs[0]), reference.sample(runs[1])


def count_subgraphs(compiled: ov.CompiledModel | DataflowModel) -> int:
    """Return the number of pieces that an executor cut a model into; 1 if none did."""
    if isinstance(compiled, DataflowModel):
        return compiled.num_regions
    if SUBGRAPHS not in compiled.get_property("SUPPORTED_PROPERTIES"):
        return 1
    return int(compiled.get_property(SUBGRAPHS))


def _latency_runner(
    request: ov.InferRequest | DataflowRequest,
    samples: Sequence[Sequence[ov.Tensor]],
    stateful: bool,
) -> Callable[[int], float]:
    """Return a timer of runs in a row, rounded up to whole passes through the samples."""
    prepare(request, samples[0], stateful)

    def run(runs: int) -> float:
        start = time.perf_counter()
        for _ in range(runs):
            request.infer()
        return (time.perf_counter() - start) / runs

    def run_each(runs: int) -> float:
        passes = math.ceil(runs / len(samples))
        elapsed_s = 0.0
        for _ in range(passes):
            for sample in samples:
                prepare(request, sample, stateful)
                elapsed_s += run(1)
        return elapsed_s / (passes * len(samples))

    return run_each if len(samples) > 1 or stateful else run


def _throughput_runner(
    compiled: ov.CompiledModel,
    samples: Sequence[Sequence[ov.Tensor]],
    requests: int,
    stateful: bool,
) -> Callable[[int], float]:
    """Return a timer of rounds of the queue, rounded up to whole passes through the samples."""
    queue = ov.AsyncInferQueue(compiled, requests)
    inputs = [dict(enumerate(sample)) for sample in samples]
    for request in queue:
        request.infer(inputs[0])
    several = inputs if len(inputs) > 1 else [None]  # None: those of the request

    def run(runs: int) -> float:
        passes = math.ceil(runs * QUEUE_ROUNDS * len(queue) / len(several))
        start = time.perf_counter()
        for _ in range(passes):
            for one in several:
                if stateful:
                    queue[queue.get_idle_request_id()].reset_state()
                queue.start_async(one, share_inputs=True)
        queue.wait_all()
        return (time.perf_counter() - start) / (passes * len(several))

    return run


def _pipeline_runner(
    requests: Sequence[DataflowRequest], samples: Sequence[Sequence[ov.Tensor]]
) -> Callable[[int], float]:
    """Return a timer of rounds of the requests, rounded up to whole passes through the samples."""
    for request in requests:
        prepare(request, samples[0], stateful=False)
        request.infer()

    def run(runs: int) -> float:
        passes = math.ceil(runs * QUEUE_ROUNDS * len(requests) / len(samples))
        start = time.perf_counter()
        for number in range(passes * len(samples)):
            request = requests[number % len(requests)]
            request.wait()
            if len(samples) > 1:
                prepare(request, samples[number % len(samples)], stateful=False)
            request.start_async()
        for request in requests:
            request.wait()
        return (time.perf_counter() - start) / (passes * len(samples))

    return run
