"""Evaluator that compiles and times each placement with OpenVINO."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from typing import Any, Self, Unpack

import numpy as np
import openvino as ov

from device_placement.envs.devices import Device, make_core, parse_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError, PlacementError, unknown
from device_placement.envs.evaluation import Evaluation, Evaluator, Measurement
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.executors.choice import choose_executor
from device_placement.envs.executors.dataflow import RegionRun
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.bench import Bench, BenchConfig, Entry, Job, LocalBench
from device_placement.envs.measuring.cache import (
    MeasurementCache,
    describe_problem,
    describe_reference,
)
from device_placement.envs.measuring.config import (
    MeasureConfig,
    MeasureOptions,
    make_measure_config,
)
from device_placement.envs.measuring.estimate import evaluate_measurements, unverifiable
from device_placement.envs.measuring.inputs import Inputs, Samples, read_inputs, warn_of_invented
from device_placement.envs.measuring.isolation import IsolatedBench, WorkerError, insist
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.reference import LostReferenceError, Reference, fix_reference
from device_placement.envs.measuring.timing import is_clearly_slower
from device_placement.envs.measuring.verification import ERROR_FLOOR
from device_placement.envs.models.deciding_inputs import is_random
from device_placement.envs.placement import Placement

_log = logging.getLogger("device_placement")


class OpenVINOEvaluator:
    """Evaluator that measures placements of one model with OpenVINO.

    A separate process measures one placement at a time on this machine, in turns with the
    reference. Placements that were measured before, here or in an earlier run, are returned with
    ``cached=True``. If anything goes wrong (a placement does not compile, a plugin crashes or
    hangs), the evaluation is invalid and has the error. When the measuring process is lost, the
    measurement is tried once more; lost again, its evaluation is ``transient`` and not stored.

    Args:
        model: the normalised model.
        coarse: its groups, for the same devices.
        devices: as `parse_devices` takes them.
        config: how to measure; the defaults if None.
        core: made by `make_core` for these devices; a new one if None.
        file: path of the file that the model was loaded from, for `compare.contenders`; empty
            if there is none.
        inputs: values of the model's inputs, as `read_inputs` takes them; invented if None. Each
            timed run goes through all samples, and its time is that per sample.
        options: fields of `MeasureConfig`, which override those of ``config``.

    Raises:
        DeviceError: when a device is missing or can't be loaded.
        InputError: when the inputs can't be read or don't fit.
        DevicePlacementError: on an unknown option or a wrong value.

    >>> from device_placement.envs import coarsen, load_model, read_graph
    >>> model = load_model("diamond")
    >>> coarse = coarsen(read_graph(model, "auto"))
    >>> evaluator = OpenVINOEvaluator(model, coarse, "auto", store=None)
    >>> evaluator.evaluate([0] * coarse.num_groups).valid
    True
    >>> evaluator.close()
    """

    measures = True
    costs = None
    schedule = ""

    def __init__(
        self,
        model: ov.Model,
        coarse: CoarseGraph,
        devices: str | Sequence[str | Device],
        config: MeasureConfig | None = None,
        *,
        core: ov.Core | None = None,
        file: str = "",
        inputs: Inputs | Samples | None = None,
        **options: Unpack[MeasureOptions],
    ) -> None:
        self.config = make_measure_config(config, **options)
        self.model = model
        self.coarse = coarse
        self.file = file
        self.devices = parse_devices(devices)
        self.core = core or make_core(self.devices)
        names = [device.name for device in self.devices]
        if coarse.graph.devices != tuple(names):
            raise DevicePlacementError(
                f"The groups were made for the devices {coarse.graph.devices}, not for "
                f"{names}; read the graph with these devices."
            )
        if self.config.reference and self.config.reference not in names:
            raise DeviceError(unknown("reference", self.config.reference, names))
        self.samples = read_inputs(model, inputs)
        if inputs is None:
            warn_of_invented(model)
        self.executor = choose_executor(
            self.config.executor, model, self.devices, self.config.objective
        )
        own = [device.name for device in self.devices if device.cores]
        if own and self.executor.name == HETERO:
            _log.warning(
                "Under the executor 'hetero', CORES of %s only sets the number of threads; they "
                "may run on any core.",
                " and ".join(own),
            )
        self.bench = self._make_bench()
        self._cache = MeasurementCache(self.config.store, self.config.max_age_s)
        self._known: dict[bytes, Evaluation] = {}
        self._fixed: Reference | None = None
        self._problem: dict[str, Any] = {}
        self._failure: DeviceError | None = None  # why there is no reference
        self._best_s = math.inf

    @property
    def reference(self) -> int:
        """The device whose single is the reference."""
        return self._fixed.device if self._fixed else self._candidates()[0]

    @property
    def unwrapped(self) -> Self:
        """The evaluator itself."""
        return self

    @property
    def given_inputs(self) -> str:
        """The key of the input values that were given; empty if they were invented."""
        return self.samples.key if self.samples.given else ""

    @property
    def store_path(self) -> str:
        """The file in which measurements are stored; empty if they are not."""
        return self._cache.path

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Return the cached evaluation of a placement, (num_groups,), or compile and time it."""
        key = np.asarray(assignment, dtype=np.int16).tobytes()
        if key in self._known and not self.config.remeasure:
            return dataclasses.replace(self._known[key], cached=True)
        try:
            placement = Placement.from_groups(self.coarse, self.devices, assignment)
            evaluation = self._evaluate(bytes(placement.op_devices))
        except (WorkerError, LostReferenceError) as error:
            evaluation = Evaluation.invalid(str(error), transient=True)
        except (PlacementError, DeviceError) as error:
            evaluation = Evaluation.invalid(str(error))
        except MemoryError as error:  # without isolation
            evaluation = Evaluation.invalid(f"Ran out of memory: {error}", transient=True)
        self._known[key] = evaluation
        if evaluation.valid:
            self._best_s = min(self._best_s, evaluation.time_s)
        return evaluation

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Measure several programs in turns; the cache is neither read nor written.

        Raises:
            WorkerError: when the measuring process was lost twice.
        """
        with machine_lock():
            return insist(lambda: self.bench.compare(entries, rounds, warmup, max_seconds))

    def timeline(self, assignment: Sequence[int]) -> list[RegionRun]:
        """Run a placement, (num_groups,), and return when each region ran in a typical run.

        Raises:
            DevicePlacementError: when the executor is ``hetero``, which does not tell.
            PlacementError: when the placement is none of this problem.
            WorkerError: when it fails, or the measuring process was lost twice.
        """
        if self.executor.name != DATAFLOW:
            raise DevicePlacementError(
                "Got executor='hetero', which does not tell when each subgraph ran; use "
                "executor='dataflow'."
            )
        placement = Placement.from_groups(self.coarse, self.devices, assignment)
        with machine_lock():
            return insist(lambda: self.bench.timeline(bytes(placement.op_devices)))

    def can_measure(self) -> bool:
        """Return whether the reference can be measured now; its time is not kept.

        It tells whether placements whose measuring process was lost were to blame for that.
        """
        op_devices = bytes([self.reference]) * self.coarse.graph.num_ops
        try:
            with machine_lock():
                return not insist(lambda: self.bench.time_reference(op_devices)).error
        except (WorkerError, MemoryError):
            return False

    def close(self) -> None:
        """End the measuring process; a later evaluation starts another one."""
        self.bench.close()

    def _evaluate(self, op_devices: bytes) -> Evaluation:
        reference = self._reference() if self.config.needs_reference else None
        if reference is not None and op_devices == reference.op_devices:
            return reference.evaluation(self.config.verifies)
        if found := self._recalled(self._remembered(op_devices)):
            return found
        with machine_lock():
            # Another process may have measured it while this one waited.
            known = self._remembered(op_devices)
            return self._recalled(known) or self._measured(op_devices, known)

    def _remembered(self, op_devices: bytes) -> tuple[Measurement, ...]:
        if self.config.remeasure:
            return ()
        return self._cache.get(self._describe(), op_devices)

    def _recalled(self, known: Sequence[Measurement]) -> Evaluation | None:
        """Return the evaluation of a placement from what is known, if that is enough."""
        evaluation = evaluate_measurements(known, self._reference_s, self.config)
        if evaluation is None or self._is_unconfirmed(evaluation, known):
            return None
        if evaluation.cut_short and not self._is_clearly_slower(evaluation):
            return None  # too coarse so near the best that there is now: measure it again
        return dataclasses.replace(evaluation, cached=True)

    def _measured(self, op_devices: bytes, known: Sequence[Measurement]) -> Evaluation:
        """Measure a placement; recompile and repeat while it would be an unconfirmed best."""
        reference_s = self._reference_s
        unit_s = 1.0 if math.isnan(reference_s) else reference_s
        job = Job(
            op_devices,
            reference=self._fixed.op_devices if self._fixed else None,
            verify=self.config.verifies,
            max_output_error=self.config.error_limit,
            best=self._best_s / unit_s,
        )
        while True:
            measured = self._measure(job)
            self._cache.add(self._describe(), op_devices, measured)
            known = [*known, measured]
            evaluation = evaluate_measurements(known, reference_s, self.config)
            assert evaluation is not None
            if not self._is_unconfirmed(evaluation, known):
                return evaluation
            job = dataclasses.replace(job, verify=False, best=math.inf)

    def _measure(self, job: Job) -> Measurement:
        return insist(lambda: self.bench.measure(job))

    def _is_unconfirmed(self, evaluation: Evaluation, known: Sequence[Measurement]) -> bool:
        """Return whether it would become the best with too few compiles, perhaps by luck."""
        if not evaluation.valid or evaluation.cut_short or evaluation.time_s >= self._best_s:
            return False
        compiles = sum(bool(one.pairs) and not one.cut_short for one in known)
        return compiles <= self.config.more_compiles

    def _is_clearly_slower(self, evaluation: Evaluation) -> bool:
        return is_clearly_slower(evaluation.samples_s, self.config.protocol, self._best_s)

    @property
    def _reference_s(self) -> float:
        return self._fixed.time_s if self._fixed and self.config.protocol.paired else math.nan

    def _candidates(self) -> list[int]:
        """Return the devices that may be the reference, in the order in which they are tried."""
        if not self.config.reference:
            return list(range(len(self.devices)))
        return [[device.name for device in self.devices].index(self.config.reference)]

    def _reference(self) -> Reference:
        if self._failure is not None:
            raise self._failure
        if self._fixed is None:
            model_hash = self.coarse.graph.model_hash
            candidates = self._candidates()
            descriptions = {
                number: describe_reference(
                    self.core,
                    model_hash,
                    self.devices[number],
                    self.config,
                    self.samples.key,
                    self.executor.name,
                )
                for number in candidates
            }
            try:
                self._fixed = self._judged(
                    fix_reference(self.coarse, candidates, descriptions, self.bench, self._cache)
                )
            except LostReferenceError:
                raise  # it is tried again
            except DeviceError as error:
                self._failure = error
                raise
        return self._fixed

    def _judged(self, reference: Reference) -> Reference:
        """Return the reference, marked if it draws random numbers and outputs are verified."""
        if not (self.config.verifies and is_random(self.model)):
            return reference
        with machine_lock():
            error, cosine = self.bench.repeat(reference.op_devices)
        if error <= min(ERROR_FLOOR, self.config.error_limit):
            return reference
        return dataclasses.replace(reference, unverified=unverifiable(cosine))

    def _describe(self) -> dict[str, Any]:
        """Return what the times of all placements here depend on; computed once."""
        if not self._problem:
            self._problem = describe_problem(
                self.core,
                self.coarse.graph.model_hash,
                self.devices,
                self.reference,
                self.config,
                self.samples.key,
                self.executor.name,
                self.coarse.op_group.tolist(),
            )
        return self._problem

    def _make_bench(self) -> Bench:
        config = self.config
        bench_config = BenchConfig(
            devices=self.devices,
            op_names=self.coarse.graph.op_names,
            timing=config.protocol,
            objective=config.objective,
            requests=config.requests,
            samples=self.samples,
            executor=self.executor.name,
            op_groups=tuple(self.coarse.op_group.tolist()),
        )
        if not config.isolated:
            return LocalBench(self.model, self.core, bench_config)
        return IsolatedBench(
            self.model, bench_config, config.timeout_s, config.max_evaluations_per_worker
        )


def executor_of(evaluator: Evaluator) -> str:
    """Return the executor that an evaluator measures with; hetero for one that predicts."""
    return as_measuring(evaluator).executor.name if evaluator.measures else HETERO


def as_measuring(evaluator: Evaluator) -> OpenVINOEvaluator:
    """Return the evaluator behind wrappers, for code that needs its model, core or configuration.

    Raises:
        DevicePlacementError: when it does not measure.
    """
    inner = evaluator.unwrapped
    if not isinstance(inner, OpenVINOEvaluator):
        raise DevicePlacementError(
            f"Got a {type(inner).__name__}, which does not measure; use evaluator='openvino'."
        )
    return inner
