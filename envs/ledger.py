"""What many copies know: the singles of each model, and each copy's best placement of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.baseline import read_baseline
from device_placement.envs.execution.evaluation import Evaluator, single_assignments
from device_placement.envs.graph import Float64
from device_placement.envs.observation import NUM_DEVICE_FEATURES, UNPLACED, Layout


class Ledger:
    """Baselines and best placements; of a model only once it was opened.

    Args:
        evaluators: one a model; deterministic, as every copy gets the same singles.
        layout: the sizes that the models are padded to.
        num_envs: how many copies there are.
    """

    def __init__(self, evaluators: Sequence[Evaluator], layout: Layout, num_envs: int) -> None:
        graphs = len(evaluators)
        self._evaluators = evaluators
        self._opened: set[int] = set()
        self.reference_s: Float64 = np.zeros(graphs)
        self.penalty_s: Float64 = np.zeros(graphs)
        self.features = np.zeros((graphs, layout.num_devices, NUM_DEVICE_FEATURES), np.float32)
        self._best_s = np.full((graphs, num_envs), np.inf)
        self._best = np.full((graphs, num_envs, layout.max_groups), UNPLACED, dtype=np.int64)

    def open(self, graph_id: int) -> None:
        """Evaluate the singles of a model, the first best for every copy; once.

        Raises:
            DeviceError: when no single is valid.
        """
        if graph_id in self._opened:
            return
        evaluator = self._evaluators[graph_id]
        singles = [evaluator.evaluate(one) for one in single_assignments(evaluator).values()]
        baseline = read_baseline(evaluator, singles)
        self.reference_s[graph_id] = baseline.reference_s
        self.penalty_s[graph_id] = baseline.penalty_s
        self.features[graph_id] = baseline.features
        times = [single.time_s for single in singles]
        self._best_s[graph_id] = np.nanmin(times)
        self._best[graph_id, :, : evaluator.coarse.num_groups] = np.nanargmin(times)
        self._opened.add(graph_id)

    def note(
        self,
        graph_ids: NDArray[np.int64],
        rows: NDArray[np.int64],
        time_s: Float64,
        placements: NDArray[np.int64],
    ) -> None:
        """Keep what is better than all before.

        Args:
            graph_ids: (number,) the models.
            rows: (number,) the copies.
            time_s: (number,) seconds; NaN where the placement is invalid.
            placements: (number, max_groups) device of each group.
        """
        better = time_s < self._best_s[graph_ids, rows]
        graph_ids, rows = graph_ids[better], rows[better]
        self._best_s[graph_ids, rows] = time_s[better]
        self._best[graph_ids, rows] = placements[better]

    def best(self, graph_ids: NDArray[np.int64]) -> tuple[Float64, NDArray[np.int64]]:
        """(num_envs,) each copy's best time in its model; (num_envs, max_groups) the placement."""
        rows = np.arange(len(graph_ids))
        return self._best_s[graph_ids, rows], self._best[graph_ids, rows]
