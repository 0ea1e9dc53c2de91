"""Placer interface: results, budgeted traces of evaluations, validation of placer options."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from device_placement.agents.runs.recording import (
    REQUESTS_PER_BUDGET,
    BudgetError,
    RecordingEvaluator,
)
from device_placement.envs.episode import balanced_placement
from device_placement.envs.errors import DevicePlacementError, unknown
from device_placement.envs.evaluation import NAN, Evaluation, Evaluator, EvaluatorWrapper
from device_placement.envs.failures import FailureCause, group_failures

PROVEN_WITHIN = 1e-6  # relative: how close bound and value of a proven optimum are


@dataclass(frozen=True)
class PlacerResult:
    """Best placement that a placer found, with its evaluations and bound."""

    assignment: tuple[int, ...]  # (num_groups,) device numbers; empty when none was valid
    time_s: float  # its time; NaN when none was valid
    evaluations: tuple[tuple[tuple[int, ...], float], ...]  # distinct ones in order; NaN: invalid
    wall_s: float
    bound_s: float = NAN  # no placement is faster than this; NaN where nothing was proven
    failures: tuple[FailureCause, ...] = ()  # of the invalid ones, the most frequent first

    @property
    def proven(self) -> bool:
        """Whether the placement is proven to be the best one."""
        return self.bound_s >= self.time_s * (1 - PROVEN_WITHIN)


class Placer(Protocol):
    """Algorithm that searches for a placement with an evaluator and a budget."""

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; equal arguments give equal placements.

        Args:
            evaluator: of one model on some devices.
            budget: distinct placements that may be evaluated, singles included.
            seed: of all random choices.
        """


class Trace:
    """Budgeted evaluations of a placer, and the result made from them.

    Args:
        evaluator: to wrap; one that already records, as a command's does, is used directly.
        budget: distinct placements that may be evaluated.

    >>> from device_placement.envs import make_evaluator
    >>> trace = Trace(make_evaluator("diamond", evaluator="simulator"), budget=3)
    >>> trace.singles() == [trace.time_s([device] * 4) for device in (0, 1)]
    True
    >>> trace.spent, len(trace.result().evaluations)
    (False, 2)
    """

    def __init__(self, evaluator: Evaluator, budget: int) -> None:
        self.start = time.perf_counter()
        self.recorder = RecordingEvaluator.of(evaluator, budget)
        self.evaluations: dict[tuple[int, ...], Evaluation] = {}  # in order of the first request

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.recorder.spent

    @property
    def progress(self) -> float:
        """Share of the budget spent on requests to this trace, 0 to 1."""
        return min(1.0, len(self.evaluations) / self.recorder.budget)

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,)."""
        key = tuple(map(int, assignment))
        evaluation = self.recorder.evaluate(key)
        self.evaluations.setdefault(key, evaluation)
        return evaluation

    def prefetch(self, assignments: Iterable[Sequence[int]]) -> None:
        """Let several machines share placements that are evaluated next."""
        self.recorder.prefetch([tuple(map(int, one)) for one in assignments])

    def time_s(self, assignment: Sequence[int]) -> float:
        """Return the seconds of one device per group, (num_groups,); inf if it is invalid."""
        evaluation = self.evaluate(assignment)
        return evaluation.time_s if evaluation.valid else math.inf

    def singles(self) -> list[float]:
        """Return the seconds of each single, (num_devices,); inf if it is invalid.

        Where none is valid under constraints, the balanced placement that an environment compares
        with is evaluated, too, so that every search begins with it.
        """
        groups = self.recorder.coarse.num_groups
        times = [self.time_s([device] * groups) for device in range(len(self.recorder.devices))]
        if all(map(math.isinf, times)) and not self.spent:
            balanced = balanced_placement(self.recorder)
            if balanced is not None:
                self.evaluate(balanced.tolist())
        return times

    def result(self, bound_s: float = NAN) -> PlacerResult:
        """Return the result so far."""
        times = {key: one.time_s for key, one in self.evaluations.items()}
        valid = {key: time_s for key, time_s in times.items() if not math.isnan(time_s)}
        best = min(valid, key=valid.__getitem__, default=())
        return PlacerResult(
            assignment=best,
            time_s=valid.get(best, NAN),
            evaluations=tuple(times.items()),
            wall_s=time.perf_counter() - self.start,
            bound_s=bound_s,
            failures=group_failures(self.evaluations),
        )


class BudgetedEvaluator(EvaluatorWrapper):
    """Evaluator on a trace, for an environment, that refuses requests beyond the budget.

    Args:
        trace: evaluates and records.
    """

    def __init__(self, trace: Trace) -> None:
        super().__init__(trace.recorder)
        self.trace = trace

    @property
    def spent(self) -> bool:
        """Whether the budget is used up."""
        return self.trace.spent

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,).

        Raises:
            BudgetError: when the budget is spent and this is new, or after too many requests.
        """
        recorder = self.trace.recorder
        endless = recorder.num_requests >= REQUESTS_PER_BUDGET * recorder.budget
        if endless or (recorder.spent and recorder.known(assignment) is None):
            raise BudgetError(
                f"Requested more than the budget of {recorder.budget} placements, or "
                f"{REQUESTS_PER_BUDGET} times as often; stop when evaluator.spent "
                "(env.unwrapped.evaluator.spent) is true."
            )
        return self.trace.evaluate(assignment)


def check_options(placer: object, **allowed: tuple[float, float]) -> None:
    """Check that options of a placer are in their ranges, ends included.

    Args:
        placer: the placer.
        allowed: lowest and highest value by field name.

    Raises:
        DevicePlacementError: when one is not.

    >>> from device_placement.agents.placers.genetic import Genetic
    >>> Genetic(population=1)
    Traceback (most recent call last):
    device_placement.envs.errors.DevicePlacementError: Got population=1 for Genetic; it must be 2 \
or more.
    """
    for name, (low, high) in allowed.items():
        value = getattr(placer, name)
        if not low <= value <= high:
            limits = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise DevicePlacementError(
                f"Got {name}={value!r} for {type(placer).__name__}; it must be {limits}."
            )


def check_names(name: str, kind: type[Any], options: Mapping[str, Any]) -> None:
    """Check that a placer has these options.

    Args:
        name: of the placer.
        kind: its class.
        options: values by name.

    Raises:
        DevicePlacementError: on an unknown option.
    """
    allowed = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in allowed:
            raise DevicePlacementError(unknown(f"option of the placer {name!r}", option, allowed))
