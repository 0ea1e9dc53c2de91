"""Vector environment of measured copies, whose placements the targets of a cluster share."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from device_placement.envs.env import DevicePlacementEnv, prefetch_proposals


class MeasuredVectorEnv(SyncVectorEnv):
    """`SyncVectorEnv` of copies that share their evaluators, and so what was measured.

    The placements that a step evaluates are measured side by side, if several targets of a cluster
    measure (``on=``); otherwise in turn, as in any `SyncVectorEnv`.

    Args:
        num_envs: number of copies.
        autoreset_mode: as for `SyncVectorEnv`.
        arguments: of `DevicePlacementEnv`.

    >>> envs = MeasuredVectorEnv(2, model="diamond", evaluator="simulator", horizon=4)
    >>> _ = envs.reset(seed=0)
    >>> _, rewards, *_ = envs.step(envs.action_space.sample())
    >>> rewards.shape
    (2,)
    >>> envs.close()
    """

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
        **arguments: Any,
    ) -> None:
        first = DevicePlacementEnv(**arguments)
        options = ("profile", "costs", "formulation", "horizon", "reward", "features", "start")
        alike = {name: arguments[name] for name in options if name in arguments}
        others = [
            DevicePlacementEnv(evaluator=first.evaluators, **alike) for _ in range(num_envs - 1)
        ]
        self._copies = [first, *others]
        super().__init__(
            [lambda one=one: one for one in self._copies],  # type: ignore[misc]
            autoreset_mode=autoreset_mode,
        )
        self._resets = np.zeros(num_envs, dtype=np.bool_)  # whose next step begins an episode

    def step(self, actions: Any) -> Any:
        """Step all copies, after the placements that they evaluate were measured."""
        each = list(zip(self._copies, actions, self._resets, strict=True))
        acting = [(copy, action) for copy, action, resets in each if not resets]
        prefetch_proposals(acting)
        result = super().step(actions)
        if self.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP:
            self._resets = result[2] | result[3]
        return result

    def reset(self, **arguments: Any) -> Any:
        """Begin episodes."""
        mask = (arguments.get("options") or {}).get("reset_mask", slice(None))
        self._resets[mask] = False
        return super().reset(**arguments)
