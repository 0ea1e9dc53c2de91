"""Adapter from the native vector environment to the `VecEnv` of stable-baselines3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from device_placement.envs.errors import DevicePlacementError, unknown
from device_placement.envs.observation import Observation
from device_placement.envs.vector_env import DevicePlacementVectorEnv

Info = dict[str, Any]


class SB3VecEnv(VecEnv):
    """Adapter of a `DevicePlacementVectorEnv` to stable-baselines3, equivalent to `DummyVecEnv`.

    Observations are writable copies. Infos are those of single environments, one dict per copy,
    with ``TimeLimit.truncated`` and, where an episode has ended, ``terminal_observation``. The
    copies share their attributes; ``action_masks`` is the only method to call on them.

    Args:
        env: made with ``autoreset_mode="SameStep"``.

    Raises:
        DevicePlacementError: when it resets in another way.

    >>> from device_placement.agents import make_algorithm
    >>> envs = DevicePlacementVectorEnv(4, "diamond", autoreset_mode="SameStep")
    >>> algorithm = make_algorithm("ppo", SB3VecEnv(envs), formulation="assign", seed=0)
    >>> algorithm.learn(64).num_timesteps
    64
    """

    def __init__(self, env: DevicePlacementVectorEnv) -> None:
        mode = env.metadata["autoreset_mode"]
        if mode is not AutoresetMode.SAME_STEP:
            raise DevicePlacementError(
                f"Got a vector env with autoreset_mode={mode.value!r}; stable-baselines3 resets in "
                "the step that ends an episode. Make it with autoreset_mode='SameStep'."
            )
        self.env = env
        self._actions: NDArray[Any] = np.zeros(0)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> dict[str, NDArray[Any]]:
        """Begin an episode in every copy, with the seeds and options that were set."""
        chosen = [options.get("graph_id") for options in self._options]
        observation, infos = self.env.reset(seed=self._seeds, options={"graph_id": chosen})
        self.reset_infos = split_infos(infos, _num_groups(observation))
        self._reset_seeds()
        self._reset_options()
        return _copy(observation)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions, (num_envs, ...), for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """Step; an episode that ends is reset at once."""
        observation, rewards, terminated, truncated, infos = self.env.step(self._actions)
        done = terminated | truncated
        rows = split_infos(infos, _num_groups(observation))
        if done.any():
            self._add_last(rows, np.flatnonzero(done).tolist(), infos)
        for row, cut in zip(rows, (truncated & ~terminated).tolist(), strict=True):
            row["TimeLimit.truncated"] = cut
        return _copy(observation), rewards.astype(np.float32), done, rows

    def _add_last(self, rows: list[Info], ended: Sequence[int], infos: Info) -> None:
        """Add the ends of the episodes that have ended; `rows` are those of their resets."""
        groups = [
            0 if last is None else int(last["node_mask"].sum()) for last in infos["final_obs"]
        ]
        finals = split_infos(infos["final_info"], groups)
        for copy in ended:
            self.reset_infos[copy] = rows[copy]
            rows[copy] = finals[copy] | {"terminal_observation": infos["final_obs"][copy]}

    def close(self) -> None:
        """Close the vector env."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """Return the attribute of the vector env, once for each copy.

        Raises:
            AttributeError: when it has none of that name.
        """
        value = getattr(self.env, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of the vector env, for all copies.

        Raises:
            DevicePlacementError: when it is set for some copies only.
        """
        if len({*self._get_indices(indices)}) < self.num_envs:
            raise DevicePlacementError(
                f"The copies share {attr_name!r}; set it for all, without indices."
            )
        setattr(self.env, attr_name, value)

    def env_method(
        self,
        method_name: str,
        *method_args: Any,
        indices: VecEnvIndices = None,
        **method_kwargs: Any,
    ) -> list[Any]:
        """Return ``action_masks`` of each copy, (num_actions,) bool.

        Raises:
            AttributeError: on another method.
        """
        if method_name != "action_masks":
            raise AttributeError(unknown("method of a copy", method_name, ["action_masks"]))
        masks = self.env.action_masks(*method_args, **method_kwargs)
        return [masks[copy] for copy in self._get_indices(indices)]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """Return False for every copy: native ones have no wrappers."""
        return [False for _ in self._get_indices(indices)]


def split_infos(infos: Info, num_groups: Sequence[int]) -> list[Info]:
    """Return each copy's infos like those of a single environment: numbers, tuples, lists.

    Args:
        infos: of `DevicePlacementVectorEnv`.
        num_groups: (num_envs,) groups of each copy's model.
    """
    keys = [key for key in infos if not key.startswith("_") and not key.startswith("final_")]
    columns = [infos[key].tolist() for key in keys]
    rows = [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
    for row, groups in zip(rows, num_groups, strict=True):
        row["samples_s"] = tuple(row["samples_s"]) if row["valid"] else ()
        row["interval_s"] = tuple(row["interval_s"])
        for key in ("placement", "best_placement"):
            row[key] = row[key][:groups]
    return rows


def _num_groups(observation: Observation) -> list[int]:
    groups: list[int] = observation["node_mask"].sum(axis=1, dtype=np.int64).tolist()
    return groups


def _copy(observation: Observation) -> dict[str, NDArray[Any]]:
    # In C order, as stacked copies are: a network's rounding depends on how its input is laid out.
    return {key: np.array(array, order="C") for key, array in observation.items()}
