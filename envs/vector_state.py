"""Batched evaluation results and their `info` dicts, and the incumbents of many copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float64, Int64
from device_placement.envs.episode import find_baseline
from device_placement.envs.evaluation import NAN, Evaluator
from device_placement.envs.observation import NUM_DEVICE_FEATURES, UNPLACED, Layout, Observation
from device_placement.envs.simulation.schedule import count_parts
from device_placement.envs.simulation.simulator import SimulatedEvaluator

Infos = dict[str, Any]


@dataclass(frozen=True)
class Outcomes:
    """Evaluations of some placements; those that were not evaluated have no time and no error."""

    time_s: Float64  # (num_envs,) NaN: invalid, or not evaluated
    num_subgraphs: Int64  # (num_envs,)
    error: NDArray[np.object_]  # (num_envs,) of str
    repaired: Int64  # (num_envs,) groups that a repair moved

    @classmethod
    def none(cls, number: int) -> Outcomes:
        """Return outcomes of placements that were not evaluated."""
        error = np.full(number, "", dtype=np.object_)
        zeros = np.zeros((2, number), dtype=np.int64)
        return cls(np.full(number, NAN), zeros[0], error, zeros[1])

    @property
    def valid(self) -> Bool:
        """(num_envs,) whether the placement was evaluated and is valid."""
        return ~np.isnan(self.time_s)

    def put(self, rows: Int64, others: Outcomes) -> None:
        """Replace some rows by other outcomes."""
        self.time_s[rows] = others.time_s
        self.num_subgraphs[rows] = others.num_subgraphs
        self.error[rows] = others.error
        self.repaired[rows] = others.repaired

    def without(self, rows: Bool) -> Outcomes:
        """Return a copy in which some rows, (num_envs,), were not evaluated."""
        return Outcomes(
            np.where(rows, NAN, self.time_s),
            np.where(rows, 0, self.num_subgraphs),
            np.where(rows, "", self.error),
            np.where(rows, 0, self.repaired),
        )


def evaluate_placements(evaluator: SimulatedEvaluator, placements: NDArray[np.integer]) -> Outcomes:
    """Return the outcomes of many placements of one model, as `SimulatedEvaluator.evaluate` would.

    Args:
        evaluator: of the model.
        placements: (batch, num_groups) device numbers, each 0 to num_devices - 1.
    """
    devices = np.ascontiguousarray(placements.T, dtype=np.uint8)
    times = evaluator.evaluate_many(devices.T)
    wrong = np.flatnonzero(np.isinf(times))
    times[wrong] = NAN
    subgraphs = count_parts(evaluator.costs, devices, evaluator.schedule)
    subgraphs[wrong] = 0
    error = np.full(len(times), "", dtype=np.object_)
    for row in wrong:
        error[row] = evaluator.evaluate(placements[row].tolist()).error
    return Outcomes(times, subgraphs, error, np.zeros_like(subgraphs))


def describe(
    outcomes: Outcomes,
    reference_s: Float64,
    placements: Int64,
    best_s: Float64,
    best: Int64,
    given: Bool,
) -> Infos:
    """Return the infos of all copies: one array per key, and its mask under ``_`` plus the key.

    Args:
        outcomes: of this step.
        reference_s: (num_envs,) time of the reference single.
        placements: (num_envs, max_groups) the current ones.
        best_s: (num_envs,) the best time so far.
        best: (num_envs, max_groups) the placement that took it.
        given: (num_envs,) the copies that have infos.
    """
    number = len(given)
    nothing, no, zero = (np.broadcast_to(value, number) for value in (NAN, False, 0.0))
    infos: Infos = {
        "time_s": outcomes.time_s,
        "samples_s": outcomes.time_s[:, None],
        "interval_s": np.repeat(outcomes.time_s[:, None], 2, axis=1),
        "valid": outcomes.valid,
        "error": outcomes.error,
        "speedup": reference_s / outcomes.time_s,
        "num_subgraphs": outcomes.num_subgraphs,
        "compile_s": zero,
        "cached": no,
        "cut_short": no,
        "placement": placements.copy(),
        "best_time_s": best_s,
        "best_placement": best,
        "output_error": nothing,
        "output_cosine": nothing,
        "unverified": np.broadcast_to(np.array("", dtype=np.object_), number),
        "repaired": outcomes.repaired,
    }
    return infos | {f"_{key}": given for key in infos}


def final_infos(observations: Observation, infos: Infos, ended: Bool) -> Infos:
    """Return what Gymnasium's ``SameStep`` adds to the infos of a step that ends episodes.

    Args:
        observations: of all copies before their reset.
        infos: of the copies that ended.
        ended: (num_envs,) which those are.
    """
    last = np.full(len(ended), None, dtype=np.object_)
    for row in np.flatnonzero(ended):
        last[row] = {key: array[row] for key, array in observations.items()}
    return {"final_obs": last, "_final_obs": ended, "final_info": infos, "_final_info": ended}


class Incumbents:
    """Baselines and best placements of many copies, for the models opened so far.

    Args:
        evaluators: one per model; deterministic, because all copies share the singles.
        layout: the sizes that the models are padded to.
        num_envs: number of copies.
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
        """Evaluate a model's singles, once; the best becomes the best placement of every copy.

        Raises:
            DeviceError: when no single is valid.
        """
        if graph_id in self._opened:
            return
        evaluator = self._evaluators[graph_id]
        baseline, evaluations = find_baseline(
            evaluator, lambda one: evaluator.evaluate(one.tolist())
        )
        self.reference_s[graph_id] = baseline.reference_s
        self.penalty_s[graph_id] = baseline.penalty_s
        self.features[graph_id] = baseline.features
        valid = {placement: one.time_s for placement, one in evaluations.items() if one.valid}
        best = min(valid, key=valid.__getitem__)
        self._best_s[graph_id] = valid[best]
        self._best[graph_id, :, : evaluator.coarse.num_groups] = best
        self._opened.add(graph_id)

    def note(
        self,
        graph_ids: Int64,
        rows: Int64,
        time_s: Float64,
        placements: Int64,
    ) -> None:
        """Keep the placements that are faster than all before.

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

    def best(self, graph_ids: Int64) -> tuple[Float64, Int64]:
        """Return each copy's best time, (num_envs,), and placement, (num_envs, max_groups)."""
        rows = np.arange(len(graph_ids))
        return self._best_s[graph_ids, rows], self._best[graph_ids, rows]
