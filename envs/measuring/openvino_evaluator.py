"""Evaluator that compiles and times each placement with OpenVINO."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, Self, TypeVar, Unpack

import numpy as np
import openvino as ov

from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError, PlacementError, unknown
from device_placement.envs.evaluation import Evaluation, Evaluator, Measurement
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.executors.choice import choose_executor
from device_placement.envs.executors.dataflow import RegionRun
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.bench import Bench, BenchConfig, Entry, Job
from device_placement.envs.measuring.cache import (
    MeasurementCache,
    describe_problem_here,
    describe_references_here,
)
from device_placement.envs.measuring.config import (
    MeasureConfig,
    MeasureOptions,
    make_measure_config,
)
from device_placement.envs.measuring.estimate import evaluate_measurements, unverifiable
from device_placement.envs.measuring.inputs import Inputs, Samples, read_inputs, warn_of_invented
from device_placement.envs.measuring.isolation import WorkerError, insist
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.reference import LostReferenceError, Reference, fix_reference
from device_placement.envs.measuring.target import (
    GoneError,
    LocalTarget,
    OnModel,
    P,
    T,
    Target,
    on_any,
)
from device_placement.envs.measuring.timing import is_clearly_slower
from device_placement.envs.measuring.verification import ERROR_FLOOR
from device_placement.envs.models.deciding_inputs import is_random
from device_placement.envs.placement import Placement

R = TypeVar("R")
_log = logging.getLogger("device_placement")


class OpenVINOEvaluator:
    """Evaluator that measures placements of one model with OpenVINO.

    A separate process measures one placement at a time on this machine, or on each machine of a
    cluster, in turns with the reference. Placements that were measured before, here or in an
    earlier run, are returned with ``cached=True``. If anything goes wrong (a placement does not
    compile, a plugin crashes or hangs), the evaluation is invalid and has the error. When the
    measuring process is lost, the measurement is tried once more; lost again, its evaluation is
    ``transient`` and not stored.

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
        where: the machines that measure, for these devices; this one if None.
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
        where: Target | None = None,
        **options: Unpack[MeasureOptions],
    ) -> None:
        self.config = make_measure_config(config, **options)
        self.model = model
        self.coarse = coarse
        self.file = file
        self.devices = where.devices if where else parse_devices(devices)
        self.target = where or LocalTarget(model, self.devices, core)
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
        machines = range(self.target.num_machines)
        self._benches = [self._make_bench(machine) for machine in machines]
        self._cache = MeasurementCache(self.config.store, self.config.max_age_s)
        self._known: dict[bytes, Evaluation] = {}
        self._new: set[bytes] = set()  # measured by `prefetch`, and not asked for yet
        self._fixed: Reference | None = None
        self._problems: dict[int, dict[str, Any]] = {}  # by machine
        self._failure: DeviceError | None = None  # why there is no reference
        self._best_s = math.inf
        self._noting = threading.Lock()

    @property
    def core(self) -> ov.Core:
        """A core that reads models, on this machine with the devices."""
        return self.target.core

    @property
    def bench(self) -> Bench:
        """The bench on the first machine."""
        return self._benches[0]

    @bench.setter
    def bench(self, bench: Bench) -> None:
        self._benches[0] = bench

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
        key = _key(assignment)
        if key in self._new:
            self._new.discard(key)
            return self._known[key]
        if key in self._known and not self.config.remeasure:
            return dataclasses.replace(self._known[key], cached=True)
        return self._evaluate_now(key, assignment)

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        """Measure placements that are asked for next side by side, where several machines can.

        Raises:
            DevicePlacementError: when the cluster is gone.
        """
        if self.target.num_machines < 2:
            return
        wanted = {_key(one): one for one in assignments}
        new = {key: one for key, one in wanted.items() if key not in self._known}
        if len(new) < 2 or self.config.remeasure:
            return
        if self.config.needs_reference:
            with contextlib.suppress(DeviceError):  # it is raised where it is asked for
                self._reference()
        with ThreadPoolExecutor(self.target.num_machines) as threads:
            try:
                for key in threads.map(self._prefetch, new, new.values()):
                    self._new.add(key)
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise

    def _prefetch(self, key: bytes, assignment: Sequence[int]) -> bytes:
        self._evaluate_now(key, assignment)
        return key

    def _evaluate_now(self, key: bytes, assignment: Sequence[int]) -> Evaluation:
        try:
            placement = Placement.from_groups(self.coarse, self.devices, assignment)
            evaluation = self._evaluate(bytes(placement.op_devices))
        except (WorkerError, LostReferenceError) as error:
            evaluation = Evaluation.invalid(str(error), transient=True)
        except (PlacementError, DeviceError) as error:
            evaluation = Evaluation.invalid(str(error))
        except MemoryError as error:  # without isolation
            evaluation = Evaluation.invalid(f"Ran out of memory: {error}", transient=True)
        with self._noting:
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
        return on_any(
            self.target,
            lambda machine: insist(
                lambda: self._benches[machine].compare(entries, rounds, warmup, max_seconds)
            ),
        )

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
        op_devices = bytes(placement.op_devices)
        return on_any(
            self.target, lambda machine: insist(lambda: self._benches[machine].timeline(op_devices))
        )

    def can_measure(self) -> bool:
        """Return whether the reference can be measured now; its time is not kept.

        It tells whether placements whose measuring process was lost were to blame for that.
        """
        op_devices = bytes([self.reference]) * self.coarse.graph.num_ops
        try:
            found = on_any(
                self.target,
                lambda machine: insist(lambda: self._benches[machine].time_reference(op_devices)),
            )
            return not found.error
        except (WorkerError, MemoryError):
            return False

    def close(self) -> None:
        """End the measuring process; a later evaluation starts another one."""
        for bench in self._benches:
            bench.close()
        self.target.close()

    def call(self, function: OnModel[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with core and model, on the machine that measures; see `Target.call`."""
        return on_any(
            self.target, lambda machine: self.target.call(machine, function, *args, **kwargs)
        )

    def call_on_file(
        self,
        function: Callable[Concatenate[ov.Core, ov.Model, str, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Call a function with core, model and the path of the model's file on that machine."""

        def action(machine: int) -> T:
            path = self.target.send_file(machine, self.file) if self.file else ""
            return self.target.call(machine, function, path, *args, **kwargs)

        return on_any(self.target, action)

    def _evaluate(self, op_devices: bytes) -> Evaluation:
        reference = self._reference() if self.config.needs_reference else None
        if reference is not None and op_devices == reference.op_devices:
            return reference.evaluation(self.config.verifies)
        if found := self._recalled(self._remembered(op_devices)):
            return found
        return on_any(self.target, lambda machine: self._in_turn(op_devices, machine))

    def _in_turn(self, op_devices: bytes, machine: int) -> Evaluation:
        """Measure a placement on a machine, unless another process did so while this one waited."""
        known = self._remembered(op_devices)
        return self._recalled(known) or self._measured(op_devices, known, machine)

    def _remembered(self, op_devices: bytes) -> tuple[Measurement, ...]:
        """Return what is stored of a placement, by any of the machines."""
        if self.config.remeasure:
            return ()
        problems = list[dict[str, Any]]()
        for machine in range(self.target.num_machines):
            with contextlib.suppress(GoneError):
                if (problem := self._describe(machine)) not in problems:
                    problems.append(problem)
        return tuple(one for problem in problems for one in self._cache.get(problem, op_devices))

    def _recalled(self, known: Sequence[Measurement]) -> Evaluation | None:
        """Return the evaluation of a placement from what is known, if that is enough."""
        evaluation = evaluate_measurements(known, self._reference_s, self.config)
        if evaluation is None or self._is_unconfirmed(evaluation, known):
            return None
        if evaluation.cut_short and not self._is_clearly_slower(evaluation):
            return None  # too coarse so near the best that there is now: measure it again
        return dataclasses.replace(evaluation, cached=True)

    def _measured(
        self, op_devices: bytes, known: Sequence[Measurement], machine: int
    ) -> Evaluation:
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
            measured = self._measure(job, machine)
            self._cache.add(self._describe(machine), op_devices, measured)
            known = [*known, measured]
            evaluation = evaluate_measurements(known, reference_s, self.config)
            assert evaluation is not None
            if not self._is_unconfirmed(evaluation, known):
                return evaluation
            job = dataclasses.replace(job, verify=False, best=math.inf)

    def _measure(self, job: Job, machine: int) -> Measurement:
        bench = self._benches[machine]
        return insist(lambda: bench.measure(job))

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
            try:
                self._fixed = on_any(self.target, self._fix_reference)
            except LostReferenceError:
                raise  # it is tried again
            except DeviceError as error:
                self._failure = error
                raise
        return self._fixed

    def _fix_reference(self, machine: int) -> Reference:
        candidates, bench = self._candidates(), self._benches[machine]
        described = self.target.call(
            machine,
            describe_references_here,
            self.coarse.graph.model_hash,
            tuple(self.devices[number] for number in candidates),
            self.config,
            self.samples.key,
            self.executor.name,
        )
        descriptions = dict(zip(candidates, described, strict=True))
        found = fix_reference(self.coarse, candidates, descriptions, bench, self._cache)
        return self._judged(found, bench)

    def _judged(self, reference: Reference, bench: Bench) -> Reference:
        """Return the reference, marked if it draws random numbers and outputs are verified."""
        if not (self.config.verifies and is_random(self.model)):
            return reference
        error, cosine = bench.repeat(reference.op_devices)
        if error <= min(ERROR_FLOOR, self.config.error_limit):
            return reference
        return dataclasses.replace(reference, unverified=unverifiable(cosine))

    def _describe(self, machine: int) -> dict[str, Any]:
        """Return what the times of all placements on a machine depend on; computed once."""
        if machine not in self._problems:
            self._problems[machine] = self.target.call(
                machine,
                describe_problem_here,
                self.coarse.graph.model_hash,
                self.devices,
                self.reference,
                self.config,
                self.samples.key,
                self.executor.name,
                self.coarse.op_group.tolist(),
            )
        return self._problems[machine]

    def _make_bench(self, machine: int) -> Bench:
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
        return self.target.make_bench(machine, bench_config, config)


def _key(assignment: Sequence[int]) -> bytes:
    return np.asarray(assignment, dtype=np.int16).tobytes()


def query(core: ov.Core, model: ov.Model, device_name: str) -> dict[str, str]:
    """Return the device that OpenVINO assigns to each op, by its friendly name."""
    return dict(core.query_model(model, device_name))


def measures_in_turn(evaluator: Evaluator) -> bool:
    """Return whether placements are measured one by one, by a single machine."""
    inner = evaluator.unwrapped
    return evaluator.measures and not (
        isinstance(inner, OpenVINOEvaluator) and inner.target.num_machines > 1
    )


def machine_of(evaluator: Evaluator) -> dict[str, str]:
    """Return processor, cores, system and versions of the machine that evaluates."""
    return (
        as_measuring(evaluator).target.describe_machine()
        if evaluator.measures
        else (describe_machine())
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
