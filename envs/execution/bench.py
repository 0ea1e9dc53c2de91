"""What a bench is: one model on its devices, where placements are checked and timed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_placement.envs.devices import Device
from device_placement.envs.execution.evaluation import Measurement
from device_placement.envs.execution.timing import Timing


@dataclass(frozen=True)
class BenchConfig:
    """What a bench must know besides the model; plain data."""

    devices: tuple[Device, ...]
    op_names: tuple[str, ...]  # (num_ops,) the order in which `op_devices` tells the devices
    timing: Timing
    objective: str = "latency"
    requests: int = 0


@dataclass(frozen=True)
class Job:
    """One placement to measure."""

    op_devices: bytes  # (num_ops,) number of each op's device
    reference: bytes | None = None  # (num_ops,) the placement to compare with
    verify: bool = False  # compare the outputs with the reference's
    max_output_error: float = math.inf  # outputs further off are not timed
    give_up: float = math.inf  # cut short when clearly slower, in units of the reference


@dataclass(frozen=True)
class Entry:
    """One thing to compare: a placement, or a device name that OpenVINO fills in itself."""

    device_name: str  # what compile_model takes
    op_devices: bytes | None = None  # (num_ops,); None: OpenVINO decides


class Bench(Protocol):
    """Measures placements, in this process or in another one.

    Whatever OpenVINO refuses is an error in the measurement; a shortage of memory is a
    MemoryError. A bench in another process raises `WorkerError` when that process is lost.
    """

    def time_reference(self, op_devices: bytes) -> Measurement:
        """Time a placement thoroughly, alone."""

    def measure(self, job: Job) -> Measurement:
        """Compile a placement, check its outputs if asked, and time it."""

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Compile all, then time one run of each in turn, round after round."""

    def close(self) -> None:
        """Give everything back."""
