"""State and `info` of an episode, the baseline of the singles, and incumbent tracking."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.arrays import Assignment, Float32
from device_placement.envs.errors import DeviceError, PlacementError
from device_placement.envs.evaluation import NAN, Evaluation, Evaluator, single_assignments
from device_placement.envs.observation import device_features
from device_placement.envs.repair.repairer import Repairer


class ShallowList(list[int]):
    """List whose deep copy is a plain copy, because its items are immutable.

    SB3's `DummyVecEnv` deep-copies all infos in each step, which with hundreds of groups took a
    quarter of the training time.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> ShallowList:
        return ShallowList(self)


@dataclass
class Episode:
    """State of an episode."""

    graph_id: int
    assignment: Assignment  # (num_groups,) -1: no device yet
    step: int = 0  # actions so far
    evaluation: Evaluation | None = None  # of the last action
    time_s: float = NAN  # the time before, for the next reward
    repaired: int = 0  # groups that the repair of the last action moved

    def information(self, reference_s: float, best_s: float, best: list[int]) -> dict[str, Any]:
        """Return the `info` dict of a step.

        Args:
            reference_s: the time of the reference single.
            best_s: the best time so far.
            best: (num_groups,) the placement that took it.
        """
        shown = self.evaluation or Evaluation(time_s=NAN)
        return {
            "time_s": shown.time_s,
            "samples_s": shown.samples_s,
            "interval_s": shown.interval_s,
            "valid": self.evaluation is not None and shown.valid,
            "error": shown.error,
            "speedup": NAN if math.isnan(shown.time_s) else reference_s / shown.time_s,
            "num_subgraphs": shown.num_subgraphs,
            "compile_s": shown.compile_s,
            "cached": shown.cached,
            "cut_short": shown.cut_short,
            "placement": ShallowList(self.assignment.tolist()),
            "best_time_s": best_s,
            "best_placement": ShallowList(best),
            "output_error": shown.output_error,
            "output_cosine": shown.output_cosine,
            "unverified": shown.unverified,
            "repaired": self.repaired,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return {
            "graph_id": self.graph_id,
            "assignment": self.assignment.tolist(),
            "step": self.step,
            "evaluation": self.evaluation and self.evaluation.to_json(),
            "time_s": self.time_s,
            "repaired": self.repaired,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Episode:
        """Return the episode that `to_json` described."""
        evaluation = content["evaluation"]
        return cls(
            graph_id=content["graph_id"],
            assignment=np.array(content["assignment"], dtype=np.int64),
            step=content["step"],
            evaluation=evaluation and Evaluation.from_json(evaluation),
            time_s=content["time_s"],
            repaired=content.get("repaired", 0),
        )


PENALTY_FACTOR = 2.0  # an invalid placement costs this times the slowest valid single


@dataclass(frozen=True)
class Baseline:
    """Times and device features from the singles of one model."""

    reference: int  # the evaluator's own, or the first device whose single is valid
    reference_s: float
    penalty_s: float  # counts as the time of an invalid placement
    features: Float32  # (num_devices, 4), part of every observation
    fastest_s: float  # of the fastest valid single, or of `balanced`
    # (num_groups,) the placement that is the reference where constraints leave no single valid
    balanced: tuple[int, ...] = ()

    def start(self, num_groups: int) -> Assignment:
        """Return the reference placement, (num_groups,) device numbers."""
        if self.balanced:
            return np.array(self.balanced, dtype=np.int64)
        return np.full(num_groups, self.reference, dtype=np.int64)


def balanced_placement(evaluator: Evaluator) -> Assignment | None:
    """Return a valid placement with even shares of work, for where no single is valid.

    None without constraints, which are made for devices that hold only a part of the model each.
    """
    costs = evaluator.costs
    if costs is None or not costs.constraints:
        return None
    found = Repairer(costs, evaluator.coarse.supported).balanced()
    return found.assignment if found.found else None


def find_baseline(
    evaluator: Evaluator, evaluate: Callable[[Assignment], Evaluation]
) -> tuple[Baseline, dict[tuple[int, ...], Evaluation]]:
    """Evaluate the singles, and what replaces them if none is valid; return the baseline.

    Args:
        evaluator: of the model.
        evaluate: evaluates one of its placements, (num_groups,).

    Returns:
        The baseline, and the evaluations by placement.

    Raises:
        DeviceError: as `read_baseline`.
    """
    tried = [np.array(one) for one in single_assignments(evaluator).values()]
    singles = [evaluate(one) for one in tried]
    balanced = None
    if not any(one.valid for one in singles):
        balanced = balanced_placement(evaluator)
    evaluations = {tuple(one.tolist()): found for one, found in zip(tried, singles, strict=True)}
    if balanced is None:
        return read_baseline(evaluator, singles), evaluations
    reference = evaluate(balanced)
    key = tuple(balanced.tolist())
    return _balanced_baseline(evaluator, reference, key), evaluations | {key: reference}


def _balanced_baseline(
    evaluator: Evaluator, reference: Evaluation, placement: tuple[int, ...]
) -> Baseline:
    """Return the baseline in which a balanced placement stands for the singles."""
    invalid = np.full(len(evaluator.devices), np.nan)
    return Baseline(
        reference=0,
        reference_s=reference.time_s,
        penalty_s=PENALTY_FACTOR * reference.time_s,
        features=device_features(invalid, evaluator.coarse, _memory(evaluator), 0),
        fastest_s=reference.time_s,
        balanced=placement,
    )


def _memory(evaluator: Evaluator) -> list[float | None]:
    """Return the bytes that each device can use; None where no limit is known."""
    if evaluator.costs is None:
        return [device.memory_bytes for device in evaluator.devices]
    return [*evaluator.costs.reachable_bytes().tolist()]


def read_baseline(evaluator: Evaluator, singles: Sequence[Evaluation]) -> Baseline:
    """Return the baseline that follows from the evaluated singles.

    Args:
        evaluator: the one that evaluated them.
        singles: (num_devices,) in the order of its devices.

    Raises:
        DeviceError: when no single is valid, or the reference takes no time.
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
    if not times[reference] > 0:
        raise DeviceError(
            f"{devices[reference]} runs {coarse.graph.name!r} in no time, so no placement can be "
            "faster. Give a model that computes something from its inputs."
        )
    return Baseline(
        reference=reference,
        reference_s=float(times[reference]),
        penalty_s=PENALTY_FACTOR * float(np.nanmax(times)),
        features=device_features(
            np.log(times / times[reference]), coarse, _memory(evaluator), reference
        ),
        fastest_s=float(np.nanmin(times)),
    )


class Incumbent:
    """Evaluation of placements, with the baseline and the best placement of each model.

    `Incumbents` does the same for many copies at once.

    Args:
        evaluators: one per model.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self._evaluators = evaluators
        self._baselines: dict[int, Baseline] = {}
        self._best: dict[int, tuple[float, list[int]]] = {}

    def baseline(self, graph_id: int) -> Baseline:
        """Return the baseline of a model; the first call evaluates its singles.

        Raises:
            DeviceError: when no single is valid.
        """
        if graph_id not in self._baselines:
            evaluate = functools.partial(self.evaluate, graph_id)
            self._baselines[graph_id], _ = find_baseline(self._evaluators[graph_id], evaluate)
        return self._baselines[graph_id]

    def evaluate(self, graph_id: int, assignment: Assignment) -> Evaluation:
        """Evaluate a placement of a model, (num_groups,) device numbers, and track the best."""
        evaluation = self._evaluators[graph_id].evaluate(assignment.tolist())
        best_s, _ = self._best.get(graph_id, (math.inf, []))
        if evaluation.valid and evaluation.time_s < best_s:
            self._best[graph_id] = (evaluation.time_s, assignment.tolist())
        return evaluation

    def best(self, graph_id: int) -> tuple[float, list[int]]:
        """Return seconds and (num_groups,) device numbers of a model's best placement so far.

        Raises:
            PlacementError: when no valid placement was evaluated yet.
        """
        if graph_id not in self._best:
            raise PlacementError("No placement was evaluated yet; call reset() first.")
        return self._best[graph_id]

    def to_json(self) -> list[Any]:
        """Return the best placements as plain data."""
        return [[graph_id, *best] for graph_id, best in self._best.items()]

    def restore(self, content: Sequence[Any]) -> None:
        """Restore what `to_json` returned, and evaluate the singles of these models."""
        best: Mapping[int, tuple[float, list[int]]] = {
            graph_id: (time_s, found) for graph_id, time_s, found in content
        }
        self._baselines = {}
        for graph_id in best:
            self.baseline(graph_id)
        self._best = dict(best)  # after the baselines, which evaluate
