"""Options of a measurement, as plain data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from device_placement.envs.errors import DevicePlacementError, choose, unknown
from device_placement.envs.measuring.timing import Timing

# OpenVINO's performance hint of each objective.
HINTS = {"latency": "LATENCY", "throughput": "THROUGHPUT"}
# How often a best placement is measured again, by protocol.
CONFIRMATIONS = {"paired": 2, "plain": 0}
# Where the measuring runs.
ISOLATIONS = {"process": True, "none": False}


@dataclass(frozen=True)
class MeasureConfig:
    """How placements are measured.

    Raises:
        DevicePlacementError: on a name or a number that makes no sense.
    """

    objective: str = "latency"
    """latency (one request at a time) or throughput (several in flight)."""
    requests: int = 0
    """Requests in flight for throughput; 0: as many as OpenVINO finds best."""
    timing: str = "paired"
    """paired (the reference runs along, in turns) or plain (the candidate runs alone)."""
    warmup: int | None = None
    """Runs before the first sample; by default paired 1, plain 3."""
    max_samples: int | None = None
    """Samples of one measurement at most; by default paired 40, plain 10."""
    max_seconds: float | None = None
    """No further sample is begun after this long; by default 5."""
    tolerance: float | None = None
    """Enough samples when the 95 % interval is narrower than this, relative to the time; by default
    paired 0.02, plain 0: all samples are taken."""
    give_up_factor: float | None = None
    """Cut a measurement short when clearly slower than this times the best so far; by default
    paired 1.25, plain never."""
    confirmations: int | None = None
    """A placement that would become the best is compiled and timed this often again before it is
    believed, as the luckiest of many looks faster than it is; by default paired 2, plain 0."""
    isolation: str = "process"
    """process (a worker that may crash or hang) or none (this process, for debugging)."""
    timeout_s: float = 300.0
    """The worker is killed when one evaluation takes longer."""
    max_evaluations_per_worker: int = 500
    """Evaluations after which the worker is replaced by a fresh one."""
    store: str | None = "auto"
    """File that remembers evaluations; auto: in the user's cache folder, none: nothing kept."""
    max_age_s: float | None = None
    """Stored evaluations older than this are made again; None: none is too old."""
    remeasure: bool = False
    """Measure anew whatever is asked, though it is known; the samples are appended."""
    reference: str = ""
    """Name of the device whose single all else is compared with; the first one by default."""
    verify: bool = False
    """Compare each placement's outputs with the reference's."""
    max_output_error: float | None = None
    """A placement whose outputs differ by more, in relative L2 norm, is invalid; verifies."""

    def __post_init__(self) -> None:
        choose("objective", self.objective, HINTS)
        choose("isolation", self.isolation, ISOLATIONS)
        _ = self.protocol
        for name, holds, allowed in (
            ("requests", self.requests >= 0, "0 or more"),
            ("confirmations", self.more_compiles >= 0, "0 or more"),
            ("timeout_s", 0 < self.timeout_s < math.inf, "above 0, and finite"),
            ("max_evaluations_per_worker", self.max_evaluations_per_worker >= 1, "1 or more"),
            ("max_age_s", self.max_age_s is None or self.max_age_s > 0, "above 0"),
            ("max_output_error", self.error_limit >= 0, "0 or more"),
        ):
            if not holds:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)!r}; it must be {allowed}."
                )

    @property
    def protocol(self) -> Timing:
        """The protocol of one measurement."""
        return Timing.named(
            self.timing,
            warmup=self.warmup,
            max_samples=self.max_samples,
            max_seconds=self.max_seconds,
            tolerance=self.tolerance,
            give_up_factor=self.give_up_factor,
        )

    @property
    def more_compiles(self) -> int:
        """How often a placement that would become the best is measured again."""
        if self.confirmations is None:
            return CONFIRMATIONS[self.timing]
        return self.confirmations

    @property
    def isolated(self) -> bool:
        """Whether a process of its own measures."""
        return ISOLATIONS[self.isolation]

    @property
    def verifies(self) -> bool:
        """Whether outputs are compared with the reference's."""
        return self.verify or self.max_output_error is not None

    @property
    def error_limit(self) -> float:
        """What outputs may be off by."""
        return math.inf if self.max_output_error is None else self.max_output_error

    @property
    def needs_reference(self) -> bool:
        """Whether the reference has to be compiled."""
        return self.protocol.paired or self.verifies


class MeasureOptions(TypedDict, total=False):
    """The fields of `MeasureConfig` as keyword arguments."""

    objective: str
    requests: int
    timing: str
    warmup: int | None
    max_samples: int | None
    max_seconds: float | None
    tolerance: float | None
    give_up_factor: float | None
    confirmations: int | None
    isolation: str
    timeout_s: float
    max_evaluations_per_worker: int
    store: str | None
    max_age_s: float | None
    remeasure: bool
    reference: str
    verify: bool
    max_output_error: float | None


def make_measure_config(
    base: MeasureConfig | None = None, **options: Unpack[MeasureOptions]
) -> MeasureConfig:
    """Make a configuration from another one and keyword arguments.

    Args:
        base: the values of what is not given; the defaults without.
        options: fields by name.

    Returns:
        A `MeasureConfig` and nothing more, also where the base is a command's configuration that
        inherits from it.

    Raises:
        DevicePlacementError: on an option that does not exist, or a wrong value.

    >>> make_measure_config(MeasureConfig(timing="plain"), requests=2).timing
    'plain'
    """
    names = [field.name for field in dataclasses.fields(MeasureConfig)]
    for name in options:
        if name not in names:
            raise DevicePlacementError(unknown("option of measuring", name, names))
    values: dict[str, Any] = {} if base is None else {name: getattr(base, name) for name in names}
    values.update(options)
    return MeasureConfig(**values)
