"""Bench for the placements of one model: compile them, check their outputs and time them."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import openvino as ov

from device_placement.envs.affinities import clear_affinities
from device_placement.envs.devices import Device
from device_placement.envs.evaluation import NAN, Measurement
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.executors.dataflow import (
    DataflowModel,
    DeviceThreads,
    RegionCache,
    RegionRun,
)
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.measuring.inputs import Samples
from device_placement.envs.measuring.program import (
    Program,
    build_dataflow,
    build_program,
    count_subgraphs,
    prepare,
    take_pairs,
    warm_up,
)
from device_placement.envs.measuring.timing import Timing
from device_placement.envs.measuring.verification import ERROR_FLOOR, output_difference
from device_placement.envs.placement import set_affinities


@dataclass(frozen=True)
class BenchConfig:
    """Settings of a bench, as plain data."""

    devices: tuple[Device, ...]
    op_names: tuple[str, ...]  # (num_ops,) in the order of `op_devices`
    timing: Timing
    objective: str = "latency"
    requests: int = 0
    samples: Samples | None = None  # of the inputs; None: invented
    executor: str = HETERO
    op_groups: tuple[int, ...] = ()  # (num_ops,) for the regions of dataflow; (): ops


@dataclass(frozen=True)
class Job:
    """One placement to measure."""

    op_devices: bytes  # (num_ops,) number of each op's device
    reference: bytes | None = None  # (num_ops,) the placement to compare with
    verify: bool = False  # compare the outputs with the reference's
    max_output_error: float = math.inf  # outputs further off are not timed
    best: float = math.inf  # time to beat in units of the reference; cut short if clearly slower


@dataclass(frozen=True)
class Entry:
    """Program to compare: a placement, a device name for which OpenVINO chooses one, or a file."""

    device_name: str  # what compile_model takes; unused by dataflow
    op_devices: bytes | None = None  # (num_ops,); None: OpenVINO decides
    path: str = ""  # a model file to compile as it is, in place of the normalised model
    executor: str = ""  # of the placement; "": the bench's


class Bench(Protocol):
    """Protocol of a bench, which measures placements in this process or in another one.

    If OpenVINO refuses a placement, the measurement has the error; a shortage of memory is a
    MemoryError. A bench in another process raises `WorkerError` when that process is lost.
    """

    def time_reference(self, op_devices: bytes) -> Measurement:
        """Time a placement thoroughly, alone, and return the measurement."""

    def measure(self, job: Job) -> Measurement:
        """Compile a placement, check its outputs if asked, time it, and return the measurement."""

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Compile all, take one sample of each in turn, round by round, and return measurements."""

    def repeat(self, op_devices: bytes) -> tuple[float, float]:
        """Run a placement again and again; return how its outputs differ (error, cosine)."""

    def timeline(self, op_devices: bytes) -> list[RegionRun]:
        """Run a placement under dataflow, and return when each region ran in a typical run."""

    def close(self) -> None:
        """Release all resources."""


# Messages of OpenVINO and its plugins when memory, or room for another thread, runs out.
SHORTAGE = re.compile(
    "bad_alloc|out of (host |device )?memory|out_of_|alloc.* fail|fail.* alloc|cannot allocate"
    "|temporarily unavailable",
    re.IGNORECASE,
)
TIMELINE_RUNS = 14  # the first half warms up
REFERENCE = Timing("plain", warmup=3, min_samples=15, max_samples=60, tolerance=0.01)


@dataclass(frozen=True)
class ReferenceProgram:
    """Compiled and warmed-up reference that candidates are compared with."""

    op_devices: bytes  # (num_ops,)
    program: Program
    runs: int  # in one sample


class LocalBench:
    """Bench in this process.

    Args:
        model: the normalised model.
        core: made by `make_core` for the devices.
        config: devices, ops and protocol.
        report: is called with each stage, for the error message of a time-out.
    """

    def __init__(
        self,
        model: ov.Model,
        core: ov.Core,
        config: BenchConfig,
        report: Callable[[str], None] = lambda stage: None,
    ) -> None:
        self._model = model
        self._core = core
        self._config = config
        self._report = report
        self._reference: ReferenceProgram | None = None
        self._threads: DeviceThreads | None = None
        self._regions = RegionCache()

    def time_reference(self, op_devices: bytes) -> Measurement:
        """Time a placement thoroughly, alone; keep its program, to run in turns with others."""
        try:
            reference = self._compile_reference(op_devices)
            self._report("timing the reference")
            pairs, _ = take_pairs(reference.program, None, REFERENCE, runs=(reference.runs, 1))
        except RuntimeError as error:
            return _refused(error)
        return Measurement(
            pairs=pairs,
            num_subgraphs=count_subgraphs(reference.program.compiled),
            compile_s=reference.program.compile_s,
        )

    def measure(self, job: Job) -> Measurement:
        """Compile a placement, check its outputs if asked, and time it."""
        try:
            reference = self._compile_reference(job.reference) if job.reference else None
        except RuntimeError as error:
            return Measurement(error=f"The reference failed: {_text(error)}")
        self._report("compiling")
        try:
            program = self._build(self._entry(job.op_devices))
        except RuntimeError as error:
            return _refused(error)
        num_subgraphs, compile_s = count_subgraphs(program.compiled), program.compile_s
        start = time.perf_counter()
        difference, cut_short = (NAN, NAN), False
        pairs: tuple[tuple[float, float], ...] = ()
        try:
            if job.verify and reference is not None:
                self._report("verifying")
                difference = _verify(program, reference.program, job.max_output_error)
            if not job.verify or not difference[0] > job.max_output_error:
                self._report("timing")
                pairs, cut_short = self._time(program, reference, job.best)
        except RuntimeError as error:
            return Measurement(error=_text(error), compile_s=compile_s)
        del program
        return Measurement(
            pairs=pairs,
            num_subgraphs=num_subgraphs,
            compile_s=compile_s,
            run_s=time.perf_counter() - start,
            cut_short=cut_short,
            output_error=difference[0],
            output_cosine=difference[1],
        )

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Compile all, then take one sample of each in turn, round after round."""
        self._report("compiling the contenders")
        built = [self._try_build(entry, warmup) for entry in entries]
        programs = {index: one for index, one in enumerate(built) if isinstance(one, tuple)}
        samples: dict[int, list[float]] = {index: [] for index in programs}
        self._report("timing the contenders")
        start = time.perf_counter()
        for done in range(rounds):
            if done and time.perf_counter() - start > max_seconds:
                break
            for index, (program, runs) in programs.items():
                samples[index].append(program.sample(runs))
        return [
            one
            if isinstance(one, Measurement)
            else Measurement(
                pairs=tuple((sample, NAN) for sample in samples[index]),
                num_subgraphs=count_subgraphs(one[0].compiled),
                compile_s=one[0].compile_s,
            )
            for index, one in enumerate(built)
        ]

    def repeat(self, op_devices: bytes) -> tuple[float, float]:
        """Run a placement again and again; return how its outputs differ."""
        return self._compile_reference(op_devices).program.self_difference

    def timeline(self, op_devices: bytes) -> list[RegionRun]:
        """Return when each region ran in the run of the median length of several.

        Raises:
            RuntimeError: when the placement can't be compiled or run.
        """
        self._report("recording the timeline")
        program = self._build_dataflow(op_devices)
        assert isinstance(program.compiled, DataflowModel)
        request = program.compiled.create_infer_request()
        prepare(request, program.samples[0], stateful=False)
        runs = []
        for _ in range(TIMELINE_RUNS):
            request.infer()
            runs.append(request.timeline)
        warm = sorted(runs[TIMELINE_RUNS // 2 :], key=lambda run: max(one.end_s for one in run))
        return warm[len(warm) // 2]

    def close(self) -> None:
        """Release the reference, the compiled regions and the devices' threads."""
        self._reference = None
        self._regions.clear()
        if self._threads is not None:
            self._threads.close()
            self._threads = None

    def _time(
        self, program: Program, reference: ReferenceProgram | None, best: float
    ) -> tuple[tuple[tuple[float, float], ...], bool]:
        timing = self._config.timing
        runs = warm_up(program, timing.warmup)
        if reference is None or not timing.paired:
            return take_pairs(program, None, timing, best)
        return take_pairs(program, reference.program, timing, best, (runs, reference.runs))

    def _compile_reference(self, op_devices: bytes) -> ReferenceProgram:
        if self._reference is None or self._reference.op_devices != op_devices:
            self._report("compiling the reference")
            program = self._build(self._entry(op_devices))
            runs = warm_up(program, REFERENCE.warmup)
            self._reference = ReferenceProgram(op_devices, program, runs)
        return self._reference

    def _entry(self, op_devices: bytes) -> Entry:
        names = ",".join(device.name for device in self._config.devices)
        return Entry(f"HETERO:{names}", op_devices)

    def _build(self, entry: Entry) -> Program:
        config = self._config
        if entry.op_devices is not None and (entry.executor or config.executor) == DATAFLOW:
            return self._build_dataflow(entry.op_devices)
        like = self._model if entry.path else None
        model = self._model_of(entry)
        return build_program(
            self._core,
            model,
            entry.device_name,
            config.objective,
            config.requests,
            config.samples,
            like,
        )

    def _build_dataflow(self, op_devices: bytes) -> Program:
        config = self._config
        if self._threads is None:
            self._threads = DeviceThreads({one.name: one.cores for one in config.devices})
        names = [config.devices[number].name for number in op_devices]
        groups = config.op_groups
        return build_dataflow(
            self._core,
            self._model,
            plan_regions(
                self._model,
                dict(zip(config.op_names, names, strict=True)),
                dict(zip(config.op_names, groups, strict=True)) if groups else None,
            ),
            self._threads,
            self._regions,
            config.objective,
            config.requests,
            config.samples,
        )

    def _model_of(self, entry: Entry) -> ov.Model:
        """Return the model to compile: the file's, or a clone in which ops may have devices."""
        if entry.path:
            return self._core.read_model(entry.path)
        model = self._model.clone()
        if entry.op_devices is None:
            clear_affinities(model)  # of a model that was placed before
            return model
        config = self._config
        names = [device.name for device in config.devices]
        set_affinities(model, config.op_names, [names[number] for number in entry.op_devices])
        return model

    def _try_build(self, entry: Entry, warmup: int) -> tuple[Program, int] | Measurement:
        """Return a warmed-up program and how many runs make a sample, or why there is none."""
        try:
            program = self._build(entry)
            return program, warm_up(program, warmup)
        except RuntimeError as error:
            return _refused(error)


def _verify(candidate: Program, reference: Program, limit: float) -> tuple[float, float]:
    """Return how the outputs differ from the reference's, as `output_difference` does.

    Where the reference differs from itself, nothing can be said about the candidate: the error is
    NaN, and the cosine that of two runs of the reference.
    """
    error, cosine = reference.self_difference
    if error > min(ERROR_FLOOR, limit):
        return NAN, cosine
    return output_difference(candidate.outputs, reference.outputs)


def _refused(error: Exception) -> Measurement:
    return Measurement(error=_text(error), failed_to_compile=True)


def _text(error: Exception) -> str:
    """Return OpenVINO's error message.

    Raises:
        MemoryError: when memory ran out, which is not the placement's fault.
    """
    if SHORTAGE.search(str(error)):
        raise MemoryError(str(error).strip().splitlines()[-1])
    return str(error).strip() or type(error).__name__
