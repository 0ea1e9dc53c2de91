"""Evaluations of placements, and the `Evaluator` protocol with its base class and wrapper."""

from __future__ import annotations

import dataclasses
import math
import reprlib
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
    transient: bool = False  # True: the measuring process was lost, so it may be valid next time

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
            TypeError: when a field is unknown or of the wrong kind.
            KeyError: when one is missing.
            ValueError: when a value makes no sense.
        """
        values = dict(content)
        for name in ("time_s", "output_error", "output_cosine"):
            values[name] = _from_json(values[name])
        values["samples_s"] = tuple(map(_from_json, values["samples_s"]))
        low, high = map(_from_json, values["interval_s"])
        found = cls(**values | {"interval_s": (low, high)})
        found._check()
        return found

    @classmethod
    def invalid(cls, error: str, compile_s: float = 0.0, *, transient: bool = False) -> Evaluation:
        """Return an evaluation without a time."""
        error = error or "unknown error"
        return cls(time_s=NAN, error=error, compile_s=compile_s, transient=transient)

    def _check(self) -> None:
        """Check values that come from a file.

        Raises:
            TypeError: when one is of another type than its field.
            ValueError: when one makes no sense.
        """
        flags = (self.cached, self.cut_short, self.transient)
        if not isinstance(self.error, str) or {*map(type, flags)} != {bool}:
            raise TypeError("error must be a text, and cached, cut_short and transient booleans")
        if type(self.num_subgraphs) is not int:
            raise TypeError(f"num_subgraphs is {self.num_subgraphs!r}, no whole number")
        known = [one for one in self.interval_s if not math.isnan(one)]
        times = [*self.samples_s, *known, *([self.time_s] if self.valid else [])]
        for time_s in (*times, self.num_subgraphs, self.compile_s, self.run_s):
            if not 0 <= time_s < math.inf:
                raise ValueError(f"got the time or count {time_s!r}; it must be 0 or more")
        if not (self.valid or math.isnan(self.time_s)):
            raise ValueError("an invalid placement has a time")


def _from_json(value: Any) -> float:
    if value is None:
        return NAN
    if type(value) not in (int, float):
        raise TypeError(f"got {reprlib.repr(value)} for a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError("got a number that is too large") from error


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

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        """Prepare for placements that are evaluated next, if that is quicker for all together."""

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

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        """Do nothing; one after another is as quick."""

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

    def prefetch(self, assignments: Sequence[Sequence[int]]) -> None:
        """Prepare the inner evaluator for placements that are evaluated next."""
        self.inner.prefetch(assignments)

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
