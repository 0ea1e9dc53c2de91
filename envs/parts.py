"""The parts of an environment, of one copy or of many: evaluators, shapes, reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.execution.factory import make_evaluators
from device_placement.envs.features import DEFAULT_BLOCKS, group_features, num_features
from device_placement.envs.formulations import Formulation, make_formulation
from device_placement.envs.normalisation import Shapes
from device_placement.envs.observation import (
    FORMULATIONS,
    Layout,
    Observation,
    action_space,
    graph_arrays,
    observation_space,
)
from device_placement.envs.rewards import DEFAULT_REWARDS, REWARDS, Reward


@dataclass(frozen=True)
class EnvParts:
    """What stays as it is from one episode to the next."""

    evaluators: tuple[Evaluator, ...]  # one a model
    layout: Layout
    formulation: Formulation
    reward: Reward
    static: tuple[Observation, ...]  # of each model, from `graph_arrays`
    observation_space: spaces.Dict
    action_space: spaces.Space[Any]

    def draw_graph(self, generator: np.random.Generator, chosen: Any = None) -> int:
        """The model of the next episode: the chosen number, or one that is drawn.

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
    model: Any = "resnet50",
    devices: Any = "auto",
    *,
    formulation: str = "assign",
    coarsening: str = "fusion",
    max_groups: int | None = None,
    horizon: int = 20,
    reward: str | None = None,
    features: Sequence[str] = DEFAULT_BLOCKS,
    evaluator: str | Evaluator | Sequence[Evaluator] = "openvino",
    input_shapes: Shapes | None = None,
    **measuring: Any,
) -> EnvParts:
    """The parts that the arguments of `DevicePlacementEnv` describe.

    Raises:
        DevicePlacementError: or a subclass, when one of them is wrong.

    >>> parts = make_parts("diamond", "CPU,GPU", evaluator="simulator")
    >>> parts.layout.num_devices
    2
    """
    choose("formulation", formulation, dict.fromkeys(FORMULATIONS))
    chosen_reward = choose("reward", reward or DEFAULT_REWARDS[formulation], REWARDS)
    width = num_features(features)
    evaluators = make_evaluators(
        model,
        devices,
        coarsening=coarsening,
        max_groups=max_groups,
        evaluator=evaluator,
        input_shapes=input_shapes,
        **measuring,
    )
    graphs = [one.coarse for one in evaluators]
    layout = Layout.of(graphs, width, len(evaluators[0].devices))
    return EnvParts(
        evaluators=evaluators,
        layout=layout,
        formulation=make_formulation(formulation, layout, horizon),
        reward=chosen_reward,
        static=tuple(
            graph_arrays(coarse, group_features(coarse, features), layout, graph_id)
            for graph_id, coarse in enumerate(graphs)
        ),
        observation_space=observation_space(layout),
        action_space=action_space(layout, formulation),
    )
