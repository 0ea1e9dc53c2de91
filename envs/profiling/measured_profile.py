"""Hardware profile of this machine: op times by OpenVINO's profiler, the rest fitted."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Unpack

import numpy as np
import openvino as ov

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.devices import Device, find_shared_memory, with_memory
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluation, Evaluator, single_assignments
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.factory import make_evaluator
from device_placement.envs.failures import FailureCause, group_failures, list_causes
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.measuring.config import (
    MeasureConfig,
    MeasureOptions,
    make_measure_config,
)
from device_placement.envs.measuring.inputs import Inputs, Samples
from device_placement.envs.measuring.machine import describe_host, describe_machine
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator, as_measuring
from device_placement.envs.models.normalisation import Shapes
from device_placement.envs.profiling.dataflow_fit import DATAFLOW_FORMULA, calibrate_dataflow
from device_placement.envs.profiling.fit import FORMULA, Agreement, calibrate
from device_placement.envs.profiling.op_times import alike_devices, measure_op_times
from device_placement.envs.profiling.random_placements import draw_placements
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.simulator import SimulatedEvaluator

MAX_FAILED = 0.5  # share of the placements; the rest says too little, and of special ones
HELD_OUT = 4  # one random placement in four is not fitted, to estimate the error

# Each placement is timed to the end, once.
WHOLE: MeasureOptions = {
    "tolerance_growth": 0.0,
    "give_up_factor": math.inf,
    "confirmations": 0,
}

Fit = Callable[[HardwareProfile, CoarseGraph, Int64, Float64], HardwareProfile]


@dataclass(frozen=True)
class ExecutorFit:
    """How the times of an executor are predicted from a profile, and its costs fitted."""

    schedule: str  # a name of `SCHEDULES`
    fit: Fit
    formula: str


FITS: Mapping[str, ExecutorFit] = {
    HETERO: ExecutorFit("sequential", calibrate, FORMULA),
    DATAFLOW: ExecutorFit("dataflow", calibrate_dataflow, DATAFLOW_FORMULA),
}
"""Executor -> its fit."""

Progress = Callable[[Sequence[tuple[int, ...]]], Iterable[tuple[int, ...]]]


def measure_profile(
    model: Any = "resnet50",
    devices: str | Sequence[str | Device] = "auto",
    *,
    coarsening: str = "fusion",
    max_groups: int | None = None,
    input_shapes: Shapes | None = None,
    inputs: Inputs | None = None,
    placements: int = 60,
    seed: int = 0,
    progress: Progress = iter,
    measuring: MeasureConfig | None = None,
    **options: Unpack[MeasureOptions],
) -> HardwareProfile:
    """Measure the costs of a model's ops and transfers on this machine, and return the profile.

    Op times come from OpenVINO's profiler and are scaled to the measured time of the device's
    single. The other costs are fitted to the measured times of the singles and of random
    placements: by `calibrate` with the executor ``hetero``, by `calibrate_dataflow` with
    ``dataflow``. Predict the times with the schedule in ``provenance``, which is ``sequential`` or
    ``dataflow``. One in four of the random placements is held out; ``provenance`` has the accuracy
    of the profile on them.

    Args:
        model: what `load_model` takes.
        devices: what `parse_devices` takes; at least two.
        coarsening: a method of `coarsen`, for the placements that are measured.
        max_groups: maximum number of groups for them.
        input_shapes: static shapes for a model with dynamic ones.
        inputs: values of the model's inputs, as `make_evaluator` takes them; invented if None.
        placements: random placements to measure in addition to the singles, at least 4.
        seed: of the placements.
        progress: wraps the placements to be measured, as ``tqdm`` does; those that it leaves out at
            the end are not measured.
        measuring: how to measure; the defaults if None. The objective must be latency, and every
            placement is timed to the end, once.
        options: fields of `MeasureConfig`, which override those of ``measuring``.

    Returns:
        A profile of the kind ``measured``.

    Raises:
        DevicePlacementError: or a subclass, when an argument is wrong, or most placements fail;
            with the causes. Those of fewer failures are in ``provenance``.

    Example::

        profile = measure_profile("resnet50", "CPU,GPU")
        profile.save("resnet50.json")
        evaluator = make_evaluator("resnet50", "CPU,GPU", evaluator="simulator", profile=profile)
    """
    if placements < HELD_OUT:
        raise DevicePlacementError(
            f"Got placements={placements}; give at least {HELD_OUT}, of which one is held out."
        )
    config = make_measure_config(measuring, **options)
    evaluator = make_evaluator(
        model,
        devices,
        coarsening=coarsening,
        max_groups=max_groups,
        input_shapes=input_shapes,
        inputs=inputs,
        measuring=make_measure_config(config, **WHOLE),
    )
    with contextlib.closing(evaluator):
        return profile_with(evaluator, placements, seed, progress)


def profile_with(
    evaluator: OpenVINOEvaluator, placements: int, seed: int, progress: Progress = iter
) -> HardwareProfile:
    """Return the profile of `measure_profile`.

    Args:
        evaluator: measures; times that it cuts short are fitted, too, so it should rarely do so.
            Placements are timed whatever their outputs are.
        placements: as for `measure_profile`.
        seed: of the placements.
        progress: as for `measure_profile`.

    Raises:
        DevicePlacementError: as `measure_profile`.
    """
    if evaluator.config.objective != "latency":
        raise DevicePlacementError(
            f"Got the objective {evaluator.config.objective!r}; a profile is measured with "
            "objective='latency'. The schedule 'pipelined' predicts the throughput from it."
        )
    executor = FITS[evaluator.executor.name]
    profiled = _profile_ops(evaluator)
    with _without_limit(evaluator) as free:
        trials = _try_placements(free, placements, seed, progress)
    chosen = trials.ran & ~trials.held_out
    scaled = _scale_to_singles(profiled, trials.times_s[: trials.num_singles])
    fitted = executor.fit(
        scaled, evaluator.coarse, trials.assignments[chosen], trials.times_s[chosen]
    )
    found = {
        "formula": executor.formula,
        "executor": evaluator.executor.name,
        "schedule": executor.schedule,
        "coarsening": evaluator.coarse.method,
        "num_groups": evaluator.coarse.num_groups,
        "seed": seed,
        "op_time_factors": _factors(profiled, fitted),
        **_quality(evaluator, fitted, trials),
    }
    return replace(fitted, provenance={**profiled.provenance, **found})


@contextlib.contextmanager
def _without_limit(evaluator: OpenVINOEvaluator) -> Iterator[OpenVINOEvaluator]:
    """Yield an evaluator that times placements whatever their outputs are."""
    if evaluator.config.max_output_error is None:
        yield evaluator
        return
    config = make_measure_config(evaluator.config, max_output_error=None, verify=True)
    free = OpenVINOEvaluator(
        evaluator.model,
        evaluator.coarse,
        evaluator.devices,
        config,
        where=evaluator.target,
        file=evaluator.file,
        inputs=evaluator.samples,
    )
    with contextlib.closing(free):
        yield free


@dataclass(frozen=True)
class _Trials:
    """Placements with their measured times, the singles first."""

    assignments: Int64  # (num_trials, num_groups)
    times_s: Float64  # (num_trials,) NaN where it did not run
    num_singles: int
    failures: tuple[FailureCause, ...]

    @property
    def ran(self) -> Bool:
        """(num_trials,) whether each has a time."""
        return np.asarray(~np.isnan(self.times_s))

    @property
    def held_out(self) -> Bool:
        """(num_trials,) whether each ran and is not fitted."""
        number = np.arange(len(self.times_s)) - self.num_singles
        return np.asarray(self.ran & (number >= 0) & (number % HELD_OUT == HELD_OUT - 1))


def _try_placements(
    evaluator: OpenVINOEvaluator, placements: int, seed: int, progress: Progress
) -> _Trials:
    """Measure the singles and random placements, and return all."""
    singles = [tuple(single) for single in single_assignments(evaluator).values()]
    drawn = draw_placements(evaluator.coarse, placements, np.random.default_rng(seed))
    evaluations = dict[tuple[int, ...], Evaluation]()
    together = 4 * evaluator.target.num_machines  # so that progress is seen
    for number, one in enumerate(progress([*singles, *drawn])):
        if (done := number - len(singles)) >= 0 and done % together == 0:
            evaluator.prefetch(drawn[done : done + together])
        evaluations[one] = evaluator.evaluate(one)
    trials = _Trials(
        np.array([*evaluations], dtype=np.int64),
        np.array([one.time_s for one in evaluations.values()], dtype=np.float64),
        len(singles),
        group_failures(evaluations),
    )
    failed, total = int((~trials.ran).sum()), len(evaluations)
    if failed > MAX_FAILED * total:
        causes = "; ".join(list_causes(trials.failures))
        raise DevicePlacementError(
            f"{failed} of {total} placements of {evaluator.coarse.graph.name!r} failed, too many "
            f"to fit costs. Their number by cause: {causes.rstrip('.')}. Use "
            "fewer groups (max_groups), or leave out the device that fails."
        )
    return trials


def _profile_ops(evaluator: OpenVINOEvaluator) -> HardwareProfile:
    """Return a profile with the op times of OpenVINO's profiler; all other costs are 0."""
    return evaluator.call(
        profile_ops,
        evaluator.coarse.graph,
        evaluator.devices,
        evaluator.samples,
        evaluator.given_inputs,
    )


def profile_ops(
    core: ov.Core,
    model: ov.Model,
    graph: ComputationGraph,
    devices: tuple[Device, ...],
    samples: Samples,
    given_inputs: str,
) -> HardwareProfile:
    """Return a profile of op times on this machine; see `measure_op_times`."""
    number, host = len(devices), describe_host()["name"]
    columns = [
        measure_op_times(core, model, graph, devices, device, samples) for device in range(number)
    ]
    op_s = _shared_by_alike(np.stack(columns, axis=1), alike_devices(core, devices))
    return HardwareProfile(
        name=f"{graph.name} on {host}",
        model=graph.name,
        model_hash=graph.model_hash,
        op_names=graph.op_names,
        devices=with_memory(core, devices),
        op_s=op_s,
        latency_s=np.zeros((number, number)),
        bytes_per_s=np.full((number, number), np.inf),
        subgraph_s=np.zeros(number),
        pays_transfers=(True,) * number,
        provenance={
            "kind": "measured",
            "taken": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": host,
            "machine": describe_machine(),
            "inputs": given_inputs,
        },
        shared_memory=find_shared_memory(core, devices),
    )


def _shared_by_alike(op_s: Float64, kinds: Sequence[Sequence[int]]) -> Float64:
    """Return op times in which devices of one kind have the mean of their times.

    Each of their ops would else seem faster on one of them, by the profiler's noise alone.

    Args:
        op_s: (num_ops, num_devices) seconds.
        kinds: devices of each kind.
    """
    shared = op_s.copy()
    for members in kinds:
        shared[:, members] = op_s[:, members].mean(axis=1, keepdims=True)
    return shared


def _scale_to_singles(profiled: HardwareProfile, singles_s: Float64) -> HardwareProfile:
    """Scale each device's op times so that they add up to its single, if that ran.

    The profiler counts whole microseconds and slows ops down, so the sum of small ops is off by
    a multiple. Times of a device whose single did not run are not changed.
    """
    sums_s = np.nansum(profiled.op_s, axis=0)
    scales = np.divide(singles_s, sums_s, out=np.full_like(sums_s, np.nan), where=sums_s > 0)
    return replace(profiled, op_s=profiled.op_s * np.where(np.isnan(scales), 1.0, scales))


def profile_runs(evaluator: Evaluator) -> HardwareProfile:
    """Return the op times of one profiled run per device, scaled to the singles.

    Transfers and subgraphs cost nothing in it, as no run with several devices is measured.

    Args:
        evaluator: one that measures; it evaluates the singles.

    Raises:
        DevicePlacementError: when a device can't be profiled.
    """
    singles = [evaluator.evaluate(one) for one in single_assignments(evaluator).values()]
    profiled = _profile_ops(as_measuring(evaluator))
    return _scale_to_singles(profiled, np.array([single.time_s for single in singles]))


def _factors(profiled: HardwareProfile, fitted: HardwareProfile) -> dict[str, float]:
    """Return the factor by which each device's profiled times were multiplied."""
    before_s, after_s = (np.nansum(one.op_s, axis=0) for one in (profiled, fitted))
    ratios = np.divide(after_s, before_s, out=np.ones_like(after_s), where=before_s > 0)
    return {device.name: float(r) for device, r in zip(fitted.devices, ratios, strict=True)}


def _quality(
    evaluator: OpenVINOEvaluator, fitted: HardwareProfile, trials: _Trials
) -> dict[str, Any]:
    """Return how well the profile predicts the measured times."""
    schedule = FITS[evaluator.executor.name].schedule
    simulator = SimulatedEvaluator(
        evaluator.coarse, evaluator.devices, profile=fitted, schedule=schedule
    )
    predicted_s = simulator.evaluate_many(trials.assignments)
    held_out, measured_s = trials.held_out, trials.times_s
    agreement = Agreement.between(predicted_s[held_out], measured_s[held_out])
    singles = {
        device.name: {"measured_s": _or_none(measured), "predicted_s": _or_none(predicted)}
        for device, measured, predicted in zip(
            evaluator.devices, measured_s.tolist(), predicted_s.tolist(), strict=False
        )
    }
    return {
        "num_fitted": int((trials.ran & ~held_out).sum()),
        "num_held_out": agreement.num_placements,
        "num_failed": int((~trials.ran).sum()),
        "failures": [cause.to_json() for cause in trials.failures],
        "held_out_mean_error": _or_none(agreement.mean_error),
        "held_out_rank_correlation": _or_none(agreement.rank_correlation),
        "singles": singles,
    }


def _or_none(number: float) -> float | None:
    """Return a number for JSON: None for NaN and infinity."""
    return number if math.isfinite(number) else None
