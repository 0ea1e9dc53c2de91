"""Parts of an environment that no episode changes, from its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from gymnasium import spaces

from device_placement.envs.action_masks import mask_moves, mask_next, mask_whole
from device_placement.envs.arrays import Assignment, Bool
from device_placement.envs.cost_features import KnownCosts, cost_arrays
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import EvaluatorOptions, make_evaluators
from device_placement.envs.formulations import (
    Construct,
    Formulation,
    Refine,
    make_formulation,
)
from device_placement.envs.graph.features import group_features, num_features
from device_placement.envs.known_costs import find_costs
from device_placement.envs.observation import (
    FORMULATIONS,
    Layout,
    Observation,
    action_space,
    graph_arrays,
    observation_space,
)
from device_placement.envs.repair.repairer import REPAIRS, Repairer
from device_placement.envs.rewards import DEFAULT_REWARDS, REWARDS, Reward

COSTS = {"none": False, "profile": True}
"""Name -> whether agents see costs."""


@dataclass(frozen=True)
class EnvParts:
    """Parts of an environment that no episode changes."""

    evaluators: tuple[Evaluator, ...]  # one per model
    layout: Layout
    formulation: Formulation
    reward: Reward
    static: tuple[Observation, ...]  # one per model, from `graph_arrays`
    observation_space: spaces.Dict
    action_space: spaces.Space[Any]
    known: tuple[KnownCosts, ...] = ()  # one per model, if agents see costs
    repair: str = "none"  # one of `REPAIRS`
    repairers: tuple[Repairer | None, ...] = ()  # one per model; None: it has no constraints

    def mask_actions(self, graph_id: int, masks: Bool, assignment: Assignment, step: int) -> Bool:
        """Return the flat masks of the actions allowed next, as constraints leave them.

        Args:
            graph_id: the model.
            masks: of the formulation.
            assignment: (num_groups,) device numbers so far.
            step: actions of the episode so far.
        """
        repairer = self.repairers[graph_id]
        if repairer is None or not repairer.costs.constraints:
            return masks
        formulation = self.formulation
        if isinstance(formulation, Construct):
            return mask_next(masks, repairer, assignment, step)
        if isinstance(formulation, Refine):
            if self.repair != "none":
                return masks
            return mask_moves(masks, repairer.costs, assignment)
        return mask_whole(masks, repairer)

    def repaired(
        self, graph_id: int, proposal: Assignment, generator: np.random.Generator
    ) -> tuple[Assignment, int]:
        """Return the placement to evaluate instead of a proposal, and how many groups it moves."""
        repairer = self.repairers[graph_id]
        if self.repair == "none" or repairer is None:
            return proposal, 0
        found = repairer.repair(self.repair, proposal, generator)
        return found.assignment, found.changes

    def draw_graph(self, generator: np.random.Generator, chosen: Any = None) -> int:
        """Return the model of the next episode: the chosen number, or a random one.

        Raises:
            DevicePlacementError: when there is no such model.
        """
        number = len(self.evaluators)
        if chosen is None:
            return int(generator.integers(number)) if number > 1 else 0
        if not 0 <= int(chosen) < number:
            raise DevicePlacementError(
                f"Got graph_id={chosen}; the models are numbered 0 to {number - 1}."
            )
        return int(chosen)


def make_parts(
    model: Any,
    devices: Any,
    evaluator: str | Evaluator | Sequence[Evaluator],
    formulation: str,
    horizon: int,
    reward: str | None,
    features: Sequence[str],
    costs: str,
    repair: str = "none",
    **options: Unpack[EvaluatorOptions],
) -> EnvParts:
    """Return the parts of an environment for the arguments of `DevicePlacementEnv`.

    Raises:
        DevicePlacementError: or a subclass, when an argument is wrong.
    """
    choose("formulation", formulation, dict.fromkeys(FORMULATIONS))
    chosen_reward = choose("reward", reward or DEFAULT_REWARDS[formulation], REWARDS)
    sees_costs = choose("costs", costs, COSTS)
    choose("repair", repair, dict.fromkeys(REPAIRS))
    width = num_features(features)
    profile = options.get("profile")
    if sees_costs and evaluator == "openvino":
        options.pop("profile", None)  # is for the agents, not for the evaluator
    evaluators = make_evaluators(model, devices, evaluator, **options)
    graphs = [one.coarse for one in evaluators]
    repairers = [_repairer(one, repair) for one in evaluators]
    layout = Layout.of(
        graphs, width, len(evaluators[0].devices), sees_costs, formulation == "construct"
    )
    static = [
        graph_arrays(coarse, group_features(coarse, features), layout, graph_id)
        for graph_id, coarse in enumerate(graphs)
    ]
    known = [find_costs(one, profile) for one in evaluators] if sees_costs else []
    for arrays, costs_seen, coarse in zip(static, known, graphs, strict=sees_costs):
        arrays |= cost_arrays(costs_seen, coarse, layout)
    return EnvParts(
        evaluators=evaluators,
        layout=layout,
        formulation=make_formulation(formulation, layout, horizon),
        reward=chosen_reward,
        static=tuple(static),
        observation_space=observation_space(layout),
        action_space=action_space(layout, formulation),
        known=tuple(known),
        repair=repair,
        repairers=tuple(repairers),
    )


def _repairer(evaluator: Evaluator, repair: str) -> Repairer | None:
    """Return the repairer of a model with costs; None if nothing restricts its placements.

    Raises:
        DevicePlacementError: when there is something to repair, but no costs.
    """
    costs = evaluator.costs
    if costs is None and repair != "none":
        raise DevicePlacementError(
            f"Got repair={repair!r} with placements that are measured; constraints and memory "
            "limits are known for evaluator='simulator' only. Use that, or repair='none'."
        )
    if costs is None or not costs.restricted:
        return None
    return Repairer(costs, evaluator.coarse.supported)
