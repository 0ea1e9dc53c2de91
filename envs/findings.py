"""What one environment has found out: the singles of each model, and the best placement of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from device_placement.envs.baseline import Baseline, read_baseline
from device_placement.envs.errors import PlacementError
from device_placement.envs.execution.evaluation import Evaluation, Evaluator, single_assignments
from device_placement.envs.formulations import Assignment


class Findings:
    """Evaluates placements, and keeps the baselines and the best of all.

    `Ledger` does the same for many copies at once.

    Args:
        evaluators: one a model.
    """

    def __init__(self, evaluators: Sequence[Evaluator]) -> None:
        self._evaluators = evaluators
        self._baselines: dict[int, Baseline] = {}
        self._best: dict[int, tuple[float, list[int]]] = {}

    def baseline(self, graph_id: int) -> Baseline:
        """What the singles of a model say; evaluates them on the first call.

        Raises:
            DeviceError: when no single is valid.
        """
        if graph_id not in self._baselines:
            evaluator = self._evaluators[graph_id]
            assignments = single_assignments(evaluator).values()
            singles = [self.evaluate(graph_id, np.array(single)) for single in assignments]
            self._baselines[graph_id] = read_baseline(evaluator, singles)
        return self._baselines[graph_id]

    def evaluate(self, graph_id: int, assignment: Assignment) -> Evaluation:
        """Evaluate a placement of a model, (num_groups,) device numbers."""
        evaluation = self._evaluators[graph_id].evaluate(assignment.tolist())
        best_s, _ = self._best.get(graph_id, (math.inf, []))
        if evaluation.valid and evaluation.time_s < best_s:
            self._best[graph_id] = (evaluation.time_s, assignment.tolist())
        return evaluation

    def best(self, graph_id: int) -> tuple[float, list[int]]:
        """Seconds and (num_groups,) device numbers of the best placement of a model so far.

        Raises:
            PlacementError: when none that is valid was evaluated yet.
        """
        if graph_id not in self._best:
            raise PlacementError("No placement was evaluated yet; call reset() first.")
        return self._best[graph_id]

    def to_json(self) -> list[Any]:
        """The best placements as plain data."""
        return [[graph_id, *best] for graph_id, best in self._best.items()]

    def restore(self, content: Sequence[Any]) -> None:
        """Go back to what `to_json` gave; evaluates the singles of these models."""
        best: Mapping[int, tuple[float, list[int]]] = {
            graph_id: (time_s, found) for graph_id, time_s, found in content
        }
        self._baselines = {}
        for graph_id in best:
            self.baseline(graph_id)
        self._best = dict(best)  # after the baselines, which evaluate
