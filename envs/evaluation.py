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
    """A NaN that equals itself: two infos without a time are the same information.

    Gymnasium's environment checker compares infos with ``==``, and a plain NaN differs
    from itself. In everything else this is a NaN, ``!=`` and `math.isnan` included.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float) and math.isnan(other)

    __hash__ = float.__hash__


NAN: float = _NotANumber("nan")  # where there is no time


@dataclass(frozen=True)
class Measurement:
    """What one compile and its runs gave, raw: what a clock saw and a store keeps."""

    pairs: tuple[tuple[float, float], ...] = ()  # (num_samples, 2) seconds: candidate, reference
    error: str = ""  # why OpenVINO could not compile or run it
    failed_to_compile: bool = False  # the error is of the placement and will come again
    num_subgraphs: int = 0
    compile_s: float = 0.0
    run_s: float = 0.0
    cut_short: bool = False  # given up early: clearly too slow to be of interest
    output_error: float = NAN
    output_cosine: float = NAN


@dataclass(frozen=True)
class Evaluation:
    """The time of one placement, or why there is none."""

    time_s: float  # seconds per inference; NaN when invalid
    samples_s: tuple[float, ...] = ()  # (num_samples,) in the order they were taken
    interval_s: tuple[float, float] = (NAN, NAN)  # 95 % confidence interval of the median
    error: str = ""  # why the placement is invalid
    num_subgraphs: int = 0  # pieces that are compiled and run on their own
    compile_s: float = 0.0
    run_s: float = 0.0  # warm-up, samples and OpenVINO's release of the model
    cached: bool = False  # True: known already, nothing was run
    cut_short: bool = False  # True: given up early, clearly slower than the best; a rough time
    output_error: float = NAN  # relative L2 error of the outputs, where it was checked
    output_cosine: float = NAN  # their cosine with the reference's, where it was checked

    @property
    def valid(self) -> bool:
        """Whether the placement compiled and ran."""
        return not self.error

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON knows them: NaN becomes null."""
        return {name: _to_json(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_json`.

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
        """An evaluation that gave no time."""
        return cls(time_s=NAN, error=error or "unknown error", compile_s=compile_s)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class Evaluator(Protocol):
    """Turns placements of one model's groups on some devices into evaluations.

    One of your own may inherit from `BaseEvaluator`, and then defines `coarse`, `devices` and
    `evaluate` only.
    """

    @property
    def coarse(self) -> CoarseGraph:
        """The groups that are placed."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """(num_devices,) the devices they are placed on."""

    @property
    def reference(self) -> int:
        """The device whose single the others are compared with, if it runs the model."""

    @property
    def measures(self) -> bool:
        """Whether OpenVINO runs the placements, so that times vary and can be validated."""

    @property
    def costs(self) -> Costs | None:
        """The costs that times are computed from; None where there are none."""

    @property
    def schedule(self) -> str:
        """The name in `SCHEDULES` of how costs become a time; empty without costs."""

    @property
    def store_path(self) -> str:
        """The file that keeps measurements; empty where nothing is kept."""

    @property
    def unwrapped(self) -> Evaluator:
        """The evaluator itself, without those that record what it does."""

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,); wrong ones are invalid, not raised."""

    def close(self) -> None:
        """Release what it holds, such as a measuring process; it may be used again."""


class BaseEvaluator:
    """Defaults for an evaluator that neither measures nor has costs, and holds nothing open."""

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
        """Do nothing: nothing is held."""


class EvaluatorWrapper:
    """An evaluator around another one, as `gymnasium.Wrapper` is of environments.

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
        """The device whose single the others are compared with."""
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
        """The name of how costs become a time."""
        return self.inner.schedule

    @property
    def store_path(self) -> str:
        """The file that keeps measurements."""
        return self.inner.store_path

    @property
    def unwrapped(self) -> Evaluator:
        """The innermost evaluator."""
        return self.inner.unwrapped

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,)."""
        return self.inner.evaluate(assignment)

    def close(self) -> None:
        """Close the inner evaluator."""
        self.inner.close()


def check_evaluator(evaluator: Evaluator) -> None:
    """Check that an object has all that an evaluator needs.

    Raises:
        DevicePlacementError: when it lacks something.
    """
    needed = [name for name in vars(Evaluator) if not name.startswith("_")]
    lacking = [name for name in needed if not hasattr(evaluator, name)]
    if lacking:
        raise DevicePlacementError(
            f"Got a {type(evaluator).__name__} as an evaluator, which has no "
            f"{', '.join(lacking)}; inherit from device_placement.envs.BaseEvaluator, which has "
            "all but coarse, devices and evaluate."
        )


def single_assignments(evaluator: Evaluator) -> dict[str, list[int]]:
    """The placements on one device each, (num_groups,) device numbers by a name to show."""
    num_groups = evaluator.coarse.num_groups
    return {f"all on {device}": [i] * num_groups for i, device in enumerate(evaluator.devices)}
