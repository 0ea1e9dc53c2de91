"""Options of a measurement, as plain data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict, Unpack

from device_placement.envs.errors import DevicePlacementError, choose, unknown
from device_placement.envs.executors import EXECUTORS
from device_placement.envs.measuring.timing import Timing

# OpenVINO's performance hint of each objective.
HINTS = {"latency": "LATENCY", "throughput": "THROUGHPUT"}
# How often a best placement is measured again, by protocol.
CONFIRMATIONS = {"paired": 2, "plain": 0}
MAX_REQUESTS = 4096  # each takes the memory of the model's tensors
# Where the measuring runs.
ISOLATIONS = {"process": True, "none": False}


@dataclass(frozen=True)
class MeasureConfig:
    """How placements are measured.

    Raises:
        DevicePlacementError: on a name or a number that makes no sense.
    """

    OPTION_GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "measuring": (
            *("objective", "requests", "executor", "timing", "warmup", "max_samples"),
            *("max_seconds", "tolerance", "tolerance_growth", "give_up_factor", "confirmations"),
            *("isolation", "timeout_s", "max_evaluations_per_worker", "reference", "verify"),
            "max_output_error",
        ),
        "store": ("store", "max_age_s", "remeasure"),
        "cluster": ("on", "target", "tls_ca_file", "tls_cert", "tls_key"),
    }  # of the command line

    objective: str = "latency"
    """latency (one request at a time) or throughput (several requests in flight)."""
    requests: int = 0
    """Requests in flight for throughput; 0: as many as OpenVINO recommends."""
    executor: str = "hetero"
    """hetero (OpenVINO's HETERO, which runs the subgraphs of a request in turn), dataflow (regions
    run side by side, each when its inputs exist) or auto (dataflow if devices can do so)."""
    timing: str = "paired"
    """paired (alternate with the reference) or plain (time the candidate alone)."""
    warmup: int | None = None
    """Runs before the first sample; default: 1 for paired, 3 for plain."""
    max_samples: int | None = None
    """Most samples per measurement; default: 40 for paired, 10 for plain."""
    max_seconds: float | None = None
    """Start no further sample after this time; default: 5."""
    tolerance: float | None = None
    """Stop sampling when the 95 % interval is narrower than this fraction of the time; default:
    0.02 for paired, 0 (take all samples) for plain."""
    tolerance_growth: float | None = None
    """Let the tolerance grow with the distance from the best time: stop sampling also when the
    interval is narrower than this multiple of its distance from the best; 0: never; default: 4
    for paired, 0 for plain."""
    give_up_factor: float | None = None
    """Stop a measurement when it is clearly slower than this multiple of the best time; default:
    1.25 for paired, never for plain."""
    confirmations: int | None = None
    """How often a new best placement is compiled and timed again before it counts, because the
    minimum of noisy times is biased low; default: 2 for paired, 0 for plain."""
    isolation: str = "process"
    """process (measure in a worker process, which may crash or hang) or none (measure in this
    process, for debugging)."""
    timeout_s: float = 300.0
    """Kill the worker process when one evaluation takes longer, in seconds."""
    max_evaluations_per_worker: int = 500
    """Replace the worker process after this many evaluations."""
    store: str | None = "auto"
    """Database file of earlier evaluations; auto: in the user's cache folder, none: no store."""
    max_age_s: float | None = None
    """Repeat stored evaluations older than this, in seconds; default: use them at any age."""
    remeasure: bool = False
    """Measure again even if the result is stored; the samples are appended."""
    reference: str = ""
    """Device whose single-device placement others are compared with; default: the first."""
    verify: bool = False
    """Compare each placement's outputs with those of the reference."""
    max_output_error: float | None = None
    """Verify, and reject placements whose outputs differ by more than this relative L2 norm."""
    on: str = ""
    """Measure on the targets of a cluster: the address of its scheduler, HOST:PORT or another one
    that dask takes, or its scheduler file; default: on this machine."""
    target: str = ""
    """Names of targets of the cluster, comma-separated; default: all, if they are alike."""
    tls_ca_file: str = ""
    """For a cluster with TLS: file of the certificate authority (PEM); default: dask's settings."""
    tls_cert: str = ""
    """The same: file of the own certificate (PEM)."""
    tls_key: str = ""
    """The same: file of the own private key (PEM)."""

    def __post_init__(self) -> None:
        choose("objective", self.objective, HINTS)
        choose("executor", self.executor, EXECUTORS)
        choose("isolation", self.isolation, ISOLATIONS)
        _ = self.protocol
        for name, holds, allowed in (
            ("requests", 0 <= self.requests <= MAX_REQUESTS, f"from 0 to {MAX_REQUESTS}"),
            ("confirmations", self.more_compiles >= 0, "0 or more"),
            ("timeout_s", 0 < self.timeout_s < math.inf, "finite and above 0"),
            ("max_evaluations_per_worker", self.max_evaluations_per_worker >= 1, "1 or more"),
            ("max_age_s", self.max_age_s is None or self.max_age_s > 0, "above 0"),
            ("max_output_error", self.error_limit >= 0, "0 or more"),
        ):
            if not holds:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)!r}; it must be {allowed}."
                )
        if self.target and not self.on:
            raise DevicePlacementError(
                f"Got target={self.target!r} without a cluster; add on='HOST:PORT' with the "
                "address of its scheduler."
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
            tolerance_growth=self.tolerance_growth,
            give_up_factor=self.give_up_factor,
        )

    @property
    def more_compiles(self) -> int:
        """How often a would-be best placement is compiled and timed again."""
        if self.confirmations is None:
            return CONFIRMATIONS[self.timing]
        return self.confirmations

    @property
    def isolated(self) -> bool:
        """Whether a separate process measures."""
        return ISOLATIONS[self.isolation]

    @property
    def verifies(self) -> bool:
        """Whether outputs are compared with the reference's."""
        return self.verify or self.max_output_error is not None

    @property
    def error_limit(self) -> float:
        """Largest allowed output error; inf without a limit."""
        return math.inf if self.max_output_error is None else self.max_output_error

    @property
    def needs_reference(self) -> bool:
        """Whether the reference has to be compiled."""
        return self.protocol.paired or self.verifies


class MeasureOptions(TypedDict, total=False):
    """The fields of `MeasureConfig` as keyword arguments."""

    objective: str
    requests: int
    executor: str
    timing: str
    warmup: int | None
    max_samples: int | None
    max_seconds: float | None
    tolerance: float | None
    tolerance_growth: float | None
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
    on: str
    target: str
    tls_ca_file: str
    tls_cert: str
    tls_key: str


def make_measure_config(
    base: MeasureConfig | None = None, **options: Unpack[MeasureOptions]
) -> MeasureConfig:
    """Make a configuration from another one and keyword arguments.

    Args:
        base: values of the options that are not given; by default those of the class.
        options: fields by name.

    Returns:
        A plain `MeasureConfig`, even if the base is a command's configuration, which inherits from
        it.

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
