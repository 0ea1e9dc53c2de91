"""Evaluations of placements, and the `Evaluator` protocol with its base class and wrapper."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from device_placement.envs.costs import Costs
from device_placement.envs.devices import Device
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import CoarseGraph


class _NotANumber(float):
    """NaN that equals itself, so that two infos without a time are equal.

    Gymnasium's environment checker compares infos with ``==``, and a plain NaN differs
    from itself. In every other way this is a NaN, also for ``!=`` and `math.isnan`.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isnan(other)

    __hash__ = float.__hash__


NAN: float = _NotANumber("nan")  # where there is no time


@dataclass(frozen=True)
class Measurement:
    """Raw result of one compile and its runs, as the store keeps it."""

    pairs: tuple[tuple[float, float], ...] = ()  # (num_samples, 2) seconds: candidate, reference
    error: str = ""  # why OpenVINO could not compile or run it
    failed_to_compile: bool = False  # the placement causes the error, which will recur
    num_subgraphs: int = 0
    compile_s: float = 0.0
    run_s: float = 0.0
    cut_short: bool = False  # stopped early: clearly too slow to be of interest
    output_error: float = NAN
    output_cosine: float = NAN  # where there is no error: of two runs of the reference

    @property
    def unverifiable(self) -> bool:
        """Whether outputs were compared in vain, because the reference's differ between runs."""
        return math.isnan(self.output_error) and not math.isnan(self.output_cosine)


@dataclass(frozen=True)
class Evaluation:
    """Time of one placement, or the reason why it has none."""

    time_s: float  # seconds per inference; NaN when invalid
    samples_s: tuple[float, ...] = ()  # (num_samples,) in the order they were taken
    interval_s: tuple[float, float] = (NAN, NAN)  # 95 % confidence interval of the median
    error: str = ""  # why the placement is invalid
    num_subgraphs: int = 0  # pieces that are compiled and run separately
    compile_s: float = 0.0
    run_s: float = 0.0  # warm-up, samples and OpenVINO's release of the model
    cached: bool = False  # True: from the cache, nothing was run
    cut_short: bool = False  # True: stopped early, clearly slower than the best; a rough time
    output_error: float = NAN  # relative L2 error of the outputs, where it was checked
    output_cosine: float = NAN  # their cosine with the reference's, where it was checked
    unverified: str = ""  # why they were to be checked and could not be

    @property
    def valid(self) -> bool:
        """Whether the placement compiled and ran."""
        return not self.error

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values: NaN becomes null."""
        return {name: _to_json(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """Return the evaluation that `to_json` described.

        Raises:
            TypeError: when a field is missing, unknown or of the wrong kind.
        """
        values = dict(content)
        for name in ("time_s", "output_error", "output_cosine"):
            values[name] = NAN if values[name] is None else float(values[name])
        values["samples_s"] = tuple(float(sample) for sample in values["samples_s"])
        low, high = (NAN if bound is None else float(bound) for bound in values["interval_s"])
        return cls(**values | {"interval_s": (low, high)})

    @classmethod
    def invalid(cls, error: str, compile_s: float = 0.0) -> Evaluation:
        """Return an evaluation without a time."""
        return cls(time_s=NAN, error=error or "unknown error", compile_s=compile_s)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class Evaluator(Protocol):
    """Protocol of an evaluator of placements of one model's groups on some devices.

    To write your own, inherit from `BaseEvaluator` and define `coarse`, `devices` and `evaluate`.
    """

    @property
    def coarse(self) -> CoarseGraph:
        """The groups that are placed."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """(num_devices,) the devices they are placed on."""

    @property
    def reference(self) -> int:
        """The device whose single is the reference, if it runs the model."""

    @property
    def measures(self) -> bool:
        """Whether OpenVINO runs the placements, so that times vary and can be validated."""

    @property
    def costs(self) -> Costs | None:
        """The costs that times are computed from; None if there are none."""

    @property
    def schedule(self) -> str:
        """The name of the schedule in `SCHEDULES`; empty without costs."""

    @property
    def store_path(self) -> str:
        """The file in which measurements are stored; empty if they are not."""

    @property
    def unwrapped(self) -> Evaluator:
        """The evaluator without its wrappers."""

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate a placement, (num_groups,) device numbers; a wrong one is invalid, no error."""

    def close(self) -> None:
        """Release resources such as a measuring process; the evaluator can still be used."""


class BaseEvaluator:
    """Base class with defaults, for evaluators that neither measure nor have costs.

    A subclass defines `coarse`, `devices` and `evaluate`, as `Evaluator` describes them.
    """

    reference = 0
    measures = False
    costs: Costs | None = None
    schedule = ""
    store_path = ""

    @property
    def unwrapped(self) -> Self:
        """The evaluator itself."""
        return self

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


class EvaluatorWrapper:
    """Wrapper of an evaluator, as `gymnasium.Wrapper` is of an environment.

    Args:
        inner: the evaluator to wrap.
    """

    def __init__(self, inner: Evaluator) -> None:
        self.inner = inner

    @property
    def coarse(self) -> CoarseGraph:
        """The groups that are placed."""
        return self.inner.coarse

    @property
    def devices(self) -> tuple[Device, ...]:
        """(num_devices,) the devices they are placed on."""
        return self.inner.devices

    @property
    def reference(self) -> int:
        """The device whose single is the reference."""
        return self.inner.reference

    @property
    def measures(self) -> bool:
        """Whether OpenVINO runs the placements."""
        return self.inner.measures

    @property
    def costs(self) -> Costs | None:
        """The costs that times are computed from."""
        return self.inner.costs

    @property
    def schedule(self) -> str:
        """The name of the schedule."""
        return self.inner.schedule

    @property
    def store_path(self) -> str:
        """The file in which measurements are stored."""
        return self.inner.store_path

    @property
    def unwrapped(self) -> Evaluator:
        """The innermost evaluator."""
        return self.inner.unwrapped

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate a placement, (num_groups,) device numbers."""
        return self.inner.evaluate(assignment)

    def close(self) -> None:
        """Close the inner evaluator."""
        self.inner.close()


def check_evaluator(evaluator: Evaluator) -> None:
    """Check that an object has all attributes of an `Evaluator`.

    Raises:
        DevicePlacementError: when one is missing.
    """
    needed = [name for name in vars(Evaluator) if not name.startswith("_")]
    lacking = [name for name in needed if not hasattr(evaluator, name)]
    if lacking:
        raise DevicePlacementError(
            f"Got a {type(evaluator).__name__} as the evaluator, which lacks {', '.join(lacking)}; "
            "inherit from device_placement.envs.BaseEvaluator and define coarse, devices and "
            "evaluate."
        )


def single_assignments(evaluator: Evaluator) -> dict[str, list[int]]:
    """Return the placements on one device each, (num_groups,) device numbers by display name."""
    num_groups = evaluator.coarse.num_groups
    return {f"all on {device}": [i] * num_groups for i, device in enumerate(evaluator.devices)}
