"""Checkpoints from which an interrupted training resumes as if it had never stopped."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from device_placement.agents.training.policy_file import PolicyCard, save_policy
from device_placement.agents.training.reinforce import Reinforce
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.untrusted import check_count

Progress = Mapping[str, Any]  # plain data


class Checkpoints(BaseCallback):
    """Callback that saves a training before rollouts, right after an update, and at the end.

    Everything that determines the rest of the training is saved with the weights: the optimizer,
    the random states, the state of the episode. Nothing is saved during a rollout, as an
    interrupted one is repeated from its beginning.

    Args:
        path: of the file, which is replaced in one step.
        card: saved in the file.
        every_s: minimum seconds between two checkpoints.
        moment: returns further plain data to save.

    Raises:
        DevicePlacementError: on a negative number of seconds.
    """

    def __init__(
        self,
        path: Path,
        card: PolicyCard,
        every_s: float = 0.0,
        moment: Callable[[], Any] = lambda: None,
    ) -> None:
        check_interval(every_s)
        super().__init__()
        self._path, self._card, self._every_s, self._moment = path, card, every_s, moment
        self._written_s = -math.inf
        self._progress: Progress | None = None  # while the weights are unchanged

    def keep(self) -> None:
        """Save the last state between two updates, unless an update has begun since."""
        if self._progress is not None:
            save_policy(self.model, self._path, self._card, self._progress)
            self._written_s = time.monotonic()

    def _on_rollout_start(self) -> None:
        self._note()
        if time.monotonic() - self._written_s >= self._every_s:
            self.keep()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._progress = None

    def _on_training_end(self) -> None:
        if self._progress is None:
            self._note()
        self.keep()

    def _note(self) -> None:
        self._progress = {**progress_of(self.model), "run": self._moment()}


def check_interval(every_s: float) -> None:
    """Check the seconds between two checkpoints.

    Raises:
        DevicePlacementError: when they are negative or not a number.
    """
    if not every_s >= 0:
        raise DevicePlacementError(
            f"Got {every_s} seconds between checkpoints; it must be 0 or more."
        )


def progress_of(algorithm: BaseAlgorithm) -> Progress:
    """Return what `restore_progress` needs with a saved algorithm, between two updates."""
    return {
        "num_timesteps": algorithm.num_timesteps,
        "episode_starts": _flags(algorithm._last_episode_starts),
        "envs": _vec_env(algorithm).env_method("snapshot"),
        "random": random_states(),
        "algorithm": {
            "updates": algorithm._n_updates,
            "average": algorithm.average if isinstance(algorithm, Reinforce) else None,
            "episodes": [{key: one[key] for key in "rl"} for one in algorithm.ep_info_buffer or ()],
        },
    }


def restore_progress(algorithm: BaseAlgorithm, progress: Progress) -> None:
    """Restore a loaded algorithm, its environments and all random states.

    Args:
        algorithm: loaded with environments like those that it was trained in.
        progress: from `progress_of`.

    Raises:
        ValueError: when a number makes no sense; also what other damage leads to.
    """
    envs = _vec_env(algorithm)
    envs.reset()  # some wrappers require it
    seen = [
        envs.env_method("restore", snapshot, indices=number)[0]
        for number, snapshot in enumerate(progress["envs"])
    ]
    algorithm._last_obs = {key: np.stack([one[key] for one in seen]) for key in seen[0]}
    starts = np.array(progress["episode_starts"], dtype=np.bool_)
    if not starts.shape == (len(seen),) == (envs.num_envs,):
        raise ValueError(f"got {len(seen)} environments and {starts.size} of {envs.num_envs}")
    algorithm._last_episode_starts = starts
    algorithm.num_timesteps = check_count(progress["num_timesteps"])
    known = progress["algorithm"]
    algorithm._n_updates = check_count(known["updates"])
    if isinstance(algorithm, Reinforce):
        algorithm.average = None if known["average"] is None else float(known["average"])
    episodes = [{"r": float(one["r"]), "l": check_count(one["l"])} for one in known["episodes"]]
    algorithm.ep_info_buffer = deque(episodes, maxlen=algorithm._stats_window_size)
    algorithm.ep_success_buffer = deque(maxlen=algorithm._stats_window_size)
    set_random_states(progress["random"])


def random_states() -> Progress:
    """Return the states of Python's, NumPy's and torch's own generators, as plain data."""
    version, numbers, gauss = random.getstate()
    # stable-baselines3 draws its batches from NumPy's old generator.
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": _to_text(torch.get_rng_state()),
        "cuda": [_to_text(state) for state in torch.cuda.get_rng_state_all()] if used else [],
    }


def set_random_states(states: Progress) -> None:
    """Set the generators to states from `random_states`."""
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(states["numpy"]))  # noqa: NPY002
    torch.set_rng_state(_to_state(states["torch"]))
    if states["cuda"] and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all([_to_state(text) for text in states["cuda"]])


def _vec_env(algorithm: BaseAlgorithm) -> VecEnv:
    envs = algorithm.get_env()
    assert envs is not None
    return envs


def _flags(array: Any) -> list[bool]:
    return [bool(one) for one in array]


def _to_text(state: torch.Tensor) -> str:
    return bytes(state.cpu().tolist()).hex()


def _to_state(text: str) -> torch.Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
