"""Reference: one device's single, whose time is measured once and kept."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from device_placement.envs.errors import DeviceError, PlacementError
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.bench import Bench
from device_placement.envs.measuring.cache import MeasurementCache
from device_placement.envs.measuring.isolation import WorkerError, insist
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.placement import check_assignment

ATTEMPTS = 3  # one more than for other placements, as everything depends on the reference


@dataclass(frozen=True)
class Reference:
    """Single whose time is fixed."""

    device: int
    op_devices: bytes  # (num_ops,)
    samples_s: tuple[float, ...]  # (num_samples,)
    compile_s: float = 0.0
    num_subgraphs: int = 1
    cached: bool = False  # it was fixed in an earlier run
    unverified: str = ""  # why its outputs can't be compared with others

    @property
    def time_s(self) -> float:
        """The fixed time."""
        return statistics.median(self.samples_s)

    def evaluation(self, verified: bool) -> Evaluation:
        """Return its evaluation; if outputs are verified, its own error is 0."""
        evaluation = Evaluation(
            time_s=self.time_s,
            samples_s=self.samples_s,
            interval_s=median_interval(self.samples_s),
            num_subgraphs=self.num_subgraphs,
            compile_s=self.compile_s,
            cached=self.cached,
        )
        if not verified:
            return evaluation
        if self.unverified:
            return replace(evaluation, unverified=self.unverified)
        return replace(evaluation, output_error=0.0, output_cosine=1.0)


def fix_reference(
    coarse: CoarseGraph,
    candidates: Sequence[int],
    descriptions: Mapping[int, Mapping[str, Any]],
    bench: Bench,
    cache: MeasurementCache,
) -> Reference:
    """Return the first device's single that runs the model, with its time cached or measured.

    The machine that measures is held meanwhile, so that a second process finds what this one fixes.

    Args:
        coarse: the groups.
        candidates: numbers of the devices to try, in this order.
        descriptions: what the time of each device's single depends on.
        bench: measures the single.
        cache: keeps its time.

    Raises:
        LostReferenceError: when none could be measured, as the measuring process was lost.
        DeviceError: when none of them runs the model; with the reasons.
    """
    reasons, kind = [], DeviceError
    for device in candidates:
        op_devices = bytes([device]) * coarse.graph.num_ops
        try:
            single = np.full(coarse.num_groups, device)
            check_assignment(coarse, single, len(coarse.graph.devices))
            return _fix(device, op_devices, descriptions[device], bench, cache)
        except (PlacementError, WorkerError, _RefusedError) as error:
            reasons.append(f"{coarse.graph.devices[device]}: {error}")
            if isinstance(error, WorkerError):
                kind = LostReferenceError
    raise kind(
        f"No device runs all of {coarse.graph.name!r} alone, so there is no reference. "
        f"{' '.join(reasons)} Add a device that can, such as CPU, or use timing='plain'."
    )


class LostReferenceError(DeviceError):
    """Error of a reference whose measuring process was lost; it may be measured next time."""


class _RefusedError(RuntimeError):
    """Error of a single that OpenVINO can't compile or run."""


def _fix(
    device: int,
    op_devices: bytes,
    description: Mapping[str, Any],
    bench: Bench,
    cache: MeasurementCache,
) -> Reference:
    if samples_s := cache.get_reference(description):
        return Reference(device, op_devices, samples_s, cached=True)
    measured = insist(lambda: bench.time_reference(op_devices), ATTEMPTS)
    if measured.error:
        raise _RefusedError(measured.error)
    mine = [candidate for candidate, _ in measured.pairs]
    return Reference(
        device,
        op_devices,
        cache.fix_reference(description, mine),
        measured.compile_s,
        measured.num_subgraphs,
    )
