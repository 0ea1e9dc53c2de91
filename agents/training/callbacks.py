"""Training callback that stops at the end of the budget and logs curves to TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from device_placement.agents.placers.exact.min_cut import MinimumCut
from device_placement.agents.policies.extractors import GraphFeaturesExtractor
from device_placement.agents.runs.recording import RecordingEvaluator
from device_placement.envs.evaluation import NAN, Evaluator


class SearchCallback(BaseCallback):
    """Callback that ends training when the budget is spent, and logs curves.

    | curve | meaning |
    |---|---|
    | ``time_ms``, ``num_subgraphs`` | mean over the evaluated placements |
    | ``best_ms`` | the best time so far |
    | ``gap_percent`` | gap of the best to the optimum, where `known_optimum_s` returns one |
    | ``distinct`` | placements evaluated |
    | ``learned_groups`` | mean number of learned groups, where the policy learns groups |
    | ``entropy`` | mean entropy of the policy in nats per decision: see `entropy_per_decision` |

    All names start with ``placement/``; with several models the first four exist for each, with
    its name after that.

    Args:
        recorders: of the models, in the order of the environment's; they share the budget.
        names: of the models, where there are several.
    """

    def __init__(self, recorders: Sequence[RecordingEvaluator], names: Sequence[str] = ()) -> None:
        super().__init__()
        self._recorders = recorders
        several = len(recorders) > 1
        self._folders = [f"placement/{name}" for name in names] if several else ["placement"]
        self._optima_s: list[float] = []

    def _on_training_start(self) -> None:
        self._optima_s = [known_optimum_s(one) for one in self._recorders]

    def _on_step(self) -> bool:
        graph_ids = self.locals["obs_tensor"]["graph_id"].flatten().tolist()
        log_probs = self.locals["log_probs"].flatten().tolist()
        infos: Sequence[dict[str, Any]] = self.locals["infos"]
        for info, graph_id, log_prob in zip(infos, graph_ids, log_probs, strict=True):
            self._record_copy(info, int(graph_id), log_prob)
        learned_groups = getattr(self.model.policy.features_extractor, "num_groups", None)
        if learned_groups is not None:
            self._mean("placement/learned_groups", learned_groups)
        shared = self._recorders[0].shared
        self.logger.record("placement/distinct", shared.num_distinct)
        return not shared.spent

    def _on_training_end(self) -> None:
        # The last step is not seen if the budget was spent between two copies of the environment.
        self.logger.record("placement/distinct", self._recorders[0].shared.num_distinct)
        for graph_id, recorder in enumerate(self._recorders):
            if recorder.best:
                self._record_best(graph_id)
        self.logger.dump(self.num_timesteps)

    def _record_copy(self, info: Mapping[str, Any], graph_id: int, log_prob: float) -> None:
        """Record the step of one copy of the environment."""
        if not math.isnan(info["time_s"]):
            self._mean(f"{self._folders[graph_id]}/time_ms", 1e3 * info["time_s"])
            self._mean(f"{self._folders[graph_id]}/num_subgraphs", info["num_subgraphs"])
        self._record_best(graph_id)
        decisions = num_decisions(self.model, len(info["placement"]))
        self._mean("placement/entropy", entropy_per_decision(log_prob, decisions))

    def _mean(self, name: str, value: float) -> None:
        self.logger.record_mean(name, value)

    def _record_best(self, graph_id: int) -> None:
        recorder, folder = self._recorders[graph_id], self._folders[graph_id]
        self.logger.record(f"{folder}/best_ms", 1e3 * recorder.best_s)
        gap = recorder.best_s / self._optima_s[graph_id] - 1
        if math.isfinite(gap):
            self.logger.record(f"{folder}/gap_percent", 100 * gap)


def entropy_per_decision(log_prob: float, decisions: float) -> float:
    """Estimate the entropy per decision, in nats, of the policy that drew an action.

    The mean of -log p over drawn actions is the entropy of any policy; no distribution has to
    be computed for it.

    Args:
        log_prob: log p of the action, a sum over its decisions.
        decisions: number of decisions.

    >>> entropy_per_decision(2 * math.log(0.5), decisions=2)
    0.6931471805599453
    """
    return max(0.0, -log_prob / max(decisions, 1.0))


def num_decisions(algorithm: BaseAlgorithm, num_groups: int) -> float:
    """Return the number of choices in an action.

    It is one in ``construct`` and ``refine``. In ``assign`` it is one per learned group if the
    policy learns groups, else one per group, including padding if the policy chooses for it.

    Args:
        algorithm: that chose the action.
        num_groups: of the model.
    """
    if not isinstance(algorithm.action_space, spaces.MultiDiscrete):
        return 1.0
    extractor = algorithm.policy.features_extractor
    if isinstance(extractor, GraphFeaturesExtractor) and not isinstance(algorithm, MaskablePPO):
        return float(len(algorithm.action_space.nvec))
    return float(getattr(extractor, "num_groups", num_groups))


def known_optimum_s(evaluator: Evaluator) -> float:
    """Return the seconds of the best placement, or NaN if it is not known at once.

    It is known for two devices under `sequential`, where a minimum cut proves it in a fraction
    of a second. It is not passed to the search.

    Args:
        evaluator: of a model, recording or not; nothing is recorded.

    >>> from device_placement.envs import make_evaluator
    >>> f"{known_optimum_s(make_evaluator('inception_v3', evaluator='simulator')):.6f}"
    '0.005331'
    >>> known_optimum_s(make_evaluator("diamond", evaluator="simulator", schedule="concurrent"))
    nan
    """
    if len(evaluator.devices) != 2 or evaluator.schedule != "sequential":
        return NAN
    found = MinimumCut().place(evaluator.unwrapped, budget=3, seed=0)
    return found.time_s if found.proven else NAN
