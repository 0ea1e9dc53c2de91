"""Policy files: save a trained policy with its card, load it for an unseen model."""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.presets import preset
from device_placement.agents.presets.overrides import MAX_SIZE, check_file_overrides
from device_placement.agents.runs.recording import REQUESTS_PER_BUDGET
from device_placement.agents.training.algorithms import Env, make_algorithm
from device_placement.agents.training.weights import (
    POLICY,
    REPEAT,
    read_weights,
)
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.files import replaced
from device_placement.envs.parts import COSTS
from device_placement.envs.repair.repairer import REPAIRS
from device_placement.envs.untrusted import MIB, parse_json, read_member, reading

CARD = "device_placement.json"  # in the file, next to what stable-baselines3 writes
PROGRESS = "training.json"  # the same, of a training that may be resumed
MAX_BUFFER_BYTES = 2048 * MIB  # of the rollouts that a card asks for


@dataclass(frozen=True)
class PolicyCard:
    """Description of a saved policy: enough to build it again for another model."""

    preset: str
    formulation: str
    features: tuple[str, ...]
    """Names of the feature blocks that it reads."""
    devices: tuple[str, ...]
    """The devices it was trained on, as `parse_devices` takes them."""
    models: tuple[str, ...]
    """Names of the models it was trained on."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the preset."""
    costs: str = "none"
    """Costs that it sees: a name of `COSTS`."""
    repair: str = "none"
    """Repair of its invalid placements before they are evaluated: one of `REPAIRS`."""

    def __post_init__(self) -> None:
        choose("costs", self.costs, COSTS)
        choose("repair", self.repair, dict.fromkeys(REPAIRS))

    @classmethod
    def of(
        cls,
        name: str,
        formulation: str | None,
        evaluators: Sequence[Evaluator],
        costs: str | None = None,
        **overrides: Any,
    ) -> PolicyCard:
        """Return the card of a preset that is trained with some evaluators.

        Args:
            name: of the preset.
            formulation: the preset's by default.
            evaluators: one per model.
            costs: a name of `COSTS`; the preset's by default.
            overrides: settings that differ from the preset.

        Raises:
            DevicePlacementError: on an unknown preset, formulation or costs.
        """
        chosen = preset(name, formulation)
        return cls(
            preset=name,
            formulation=chosen.formulation,
            features=chosen.features,
            devices=tuple(str(device) for device in evaluators[0].devices),
            models=tuple(evaluator.coarse.graph.name for evaluator in evaluators),
            overrides=overrides,
            costs=chosen.costs if costs is None else costs,
        )

    @property
    def sees_costs(self) -> bool:
        """Whether it sees costs."""
        return COSTS[self.costs]

    def make_env(
        self,
        evaluator: Evaluator | Sequence[Evaluator],
        horizon: int | None = None,
        reward: str | None = None,
        profile: str | None = None,
    ) -> DevicePlacementEnv:
        """Make an environment like those that the policy was trained in.

        Args:
            evaluator: of a model, or one of each of several.
            horizon: steps of an episode; the preset's by default.
            reward: a name of `REWARDS`; the preset's by default.
            profile: file of the costs that are seen, or ``auto``, if placements are measured.

        Raises:
            DevicePlacementError: on an unknown reward, a horizon below 1, or if the costs to be
                seen can't be found.
        """
        chosen = preset(self.preset, self.formulation)
        several = evaluator if isinstance(evaluator, Sequence) else [evaluator]
        most = max(one.coarse.num_groups for one in several)
        return DevicePlacementEnv(
            evaluator=several,
            formulation=self.formulation,
            horizon=chosen.horizon or most if horizon is None else horizon,
            reward=chosen.reward if reward is None else reward,
            features=self.features,
            costs=self.costs,
            repair=self.repair,
            profile=profile,
        )

    def max_steps(self, max_groups: int, budget: int) -> int:
        """Return the maximum number of steps of a training.

        Args:
            max_groups: of the largest model.
            budget: distinct placements that it may request.
        """
        per_placement = max_groups if self.formulation == "construct" else 1
        return REQUESTS_PER_BUDGET * budget * per_placement


def save_policy(
    algorithm: BaseAlgorithm,
    path: str | os.PathLike[str],
    card: PolicyCard,
    progress: Mapping[str, Any] | None = None,
) -> None:
    """Save an algorithm and its card, replacing the file in one step.

    Args:
        algorithm: to save.
        path: of the file.
        card: of the policy.
        progress: state of its training as plain data, if it may be resumed.
    """
    with replaced(path) as draft:
        algorithm.save(draft)
        with zipfile.ZipFile(draft, "a") as archive:
            archive.writestr(CARD, json.dumps(dataclasses.asdict(card), indent=1))
            if progress is not None:
                archive.writestr(PROGRESS, json.dumps(progress))


def read_progress(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read how far the training of a saved policy was.

    Raises:
        DevicePlacementError: when the file does not contain it.
    """
    with reading(path, "a checkpoint", REPEAT):
        return dict(parse_json(read_member(path, PROGRESS)))


def read_card(path: str | os.PathLike[str]) -> PolicyCard:
    """Read the card of a saved policy.

    Raises:
        DevicePlacementError: when the file is not one that `save_policy` wrote.
    """
    with reading(path, "a policy", f"give {POLICY}."):
        content = parse_json(read_member(path, CARD))
        return PolicyCard(
            preset=str(content["preset"]),
            formulation=str(content["formulation"]),
            features=tuple(map(str, content["features"])),
            devices=tuple(map(str, content["devices"])),
            models=tuple(map(str, content["models"])),
            overrides=dict(content["overrides"]),
            costs=str(content.get("costs", "none")),  # files of earlier versions have none
        )


def load_policy(
    path: str | os.PathLike[str], env: Env, seed: int = 0, torch_device: str = "cpu"
) -> BaseAlgorithm:
    """Load a saved policy into a new algorithm, for an environment of any model and devices.

    Only weights are read, no code, so a file from elsewhere can do no harm.

    Args:
        path: of the file.
        env: made by `PolicyCard.make_env`.
        seed: of sampling, and of further training.
        torch_device: device of the network.

    Raises:
        DevicePlacementError: when the file can't be read, its weights do not fit, or it has
            settings of a size that a file may not set.
    """
    card, weights = read_card(path), read_weights(path, torch_device)
    widest = max((size for one in weights.values() for size in one.shape), default=0)
    check_file_overrides(card.overrides, path, max(MAX_SIZE, widest))
    _check_buffer(card, path, env)
    algorithm = make_algorithm(
        card.preset,
        env,
        formulation=card.formulation,
        seed=seed,
        torch_device=torch_device,
        overrides=card.overrides,
    )
    try:
        algorithm.policy.load_state_dict(weights)
    except RuntimeError as error:
        raise DevicePlacementError(
            f"The weights in {str(path)!r}, of {card.preset} for {', '.join(card.models)} on "
            f"{', '.join(card.devices)}, do not fit this model and these devices. Weights of "
            "nodewise_ppo, nodewise_a2c, construct_ppo, hsdag, hsdag_ppo, placeto and gdp fit any "
            "model; those of rnn any model on the same number of devices."
        ) from error
    return algorithm


def _check_buffer(card: PolicyCard, path: str | os.PathLike[str], env: Env) -> None:
    """Check the memory of the rollouts that a card asks for."""
    assert isinstance(env.observation_space, spaces.Dict)
    arrays = env.observation_space.sample().values()
    needed = card.overrides.get("n_steps", 0) * sum(np.asarray(one).nbytes for one in arrays)
    if needed > MAX_BUFFER_BYTES:
        raise DevicePlacementError(
            f"The policy {str(path)!r} collects n_steps={card.overrides['n_steps']} observations, "
            f"{needed / MIB:.0f} MiB for this model; a file may ask for {MAX_BUFFER_BYTES // MIB} "
            "MiB. Use a policy that was trained with a smaller n_steps."
        )
