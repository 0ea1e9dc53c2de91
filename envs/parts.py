"""Parts of an environment that no episode changes, from its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from gymnasium import spaces

from device_placement.envs.cost_features import KnownCosts, cost_arrays
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import EvaluatorOptions, make_evaluators
from device_placement.envs.formulations import Formulation, make_formulation
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
    **options: Unpack[EvaluatorOptions],
) -> EnvParts:
    """Return the parts of an environment for the arguments of `DevicePlacementEnv`.

    Raises:
        DevicePlacementError: or a subclass, when an argument is wrong.
    """
    choose("formulation", formulation, dict.fromkeys(FORMULATIONS))
    chosen_reward = choose("reward", reward or DEFAULT_REWARDS[formulation], REWARDS)
    sees_costs = choose("costs", costs, COSTS)
    width = num_features(features)
    profile = options.get("profile")
    if sees_costs and evaluator == "openvino":
        options.pop("profile", None)  # is for the agents, not for the evaluator
    evaluators = make_evaluators(model, devices, evaluator, **options)
    graphs = [one.coarse for one in evaluators]
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
    )
