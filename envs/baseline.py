"""What the singles of one model say: the reference time, and what a failure costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.errors import DeviceError
from device_placement.envs.execution.evaluation import Evaluation, Evaluator
from device_placement.envs.observation import device_features

PENALTY_FACTOR = 2.0  # an invalid placement costs this times the slowest valid single


@dataclass(frozen=True)
class Baseline:
    """What the singles of one model say."""

    reference: int  # the evaluator's own, or the first device whose single is valid
    reference_s: float
    penalty_s: float  # what an invalid placement costs
    features: NDArray[np.float32]  # (num_devices, 4), part of every observation


def read_baseline(evaluator: Evaluator, singles: Sequence[Evaluation]) -> Baseline:
    """Read the baseline off the evaluated singles.

    Args:
        evaluator: evaluated them.
        singles: (num_devices,) in the order of its devices.

    Raises:
        DeviceError: when no single is valid.
    """
    devices, coarse = evaluator.devices, evaluator.coarse
    times = np.array([single.time_s for single in singles])
    if np.isnan(times).all():
        pairs = zip(devices, singles, strict=True)
        reasons = " ".join(f"{device}: {single.error}" for device, single in pairs)
        raise DeviceError(
            f"No device runs all of {coarse.graph.name!r} alone, so there is no reference time. "
            f"{reasons} Add a device that can, such as CPU."
        )
    order = [evaluator.reference, *range(len(devices))]
    reference = next(device for device in order if not np.isnan(times[device]))
    memory = [device.memory_bytes for device in devices]
    return Baseline(
        reference=reference,
        reference_s=float(times[reference]),
        penalty_s=PENALTY_FACTOR * float(np.nanmax(times)),
        features=device_features(np.log(times / times[reference]), coarse, memory, reference),
    )
