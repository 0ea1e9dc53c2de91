"""REINFORCE on whole buffers, as in HSDAG, as an algorithm of stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import (
    ActorCriticPolicy,
    BasePolicy,
    MultiInputActorCriticPolicy,
)
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from torch import nn

from device_placement.envs.arrays import Float32
from device_placement.envs.errors import DevicePlacementError, choose

EPSILON = 1e-8  # for equal rewards
CREDITS = {
    "own": "each action is weighted by its own reward, discounted",
    "buffer": "every action is weighted by the sum of the buffer's discounted rewards",
}
BASELINES = {
    "none": "nothing is subtracted",
    "mean": "the mean reward of the buffer",
    "moving_average": "an exponential moving average of the buffers' mean rewards",
}


class Reinforce(OnPolicyAlgorithm):
    """REINFORCE with few gradient steps per buffer, every action weighted by its own reward.

    The update of HSDAG (arXiv 2405.14185, section 2.6): with the rewards r_i of a buffer of
    n_steps proposals, the gradient is sum_i gamma^i (r_i - b) grad log p(a_i); HSDAG has no
    baseline b. It suits ``assign``, where each proposal is a whole placement; if the reward came
    at the end of an episode, only the last action would learn. Adam divides gradients by their
    size, so a factor common to all rewards hardly changes anything.

    Args:
        policy: as SB3 takes it.
        env: the environment.
        learning_rate: of the optimizer, Adam unless ``policy_kwargs`` says otherwise.
        n_steps: proposals in a buffer, of each environment.
        n_epochs: gradient steps per buffer, each on all of it.
        gamma: discount of each later proposal of a buffer.
        credit: a name of `CREDITS`.
        baseline: a name of `BASELINES`.
        decay: share of the moving average that is kept with each buffer.
        normalize_advantage: divide rewards less the baseline by their standard deviation.
        ent_coef: weight of the policy's entropy, a sum over the buffer as the rest.
        max_grad_norm: norm to which the gradient is clipped.
        options: further arguments of `OnPolicyAlgorithm`.

    Raises:
        DevicePlacementError: on an unknown baseline or credit, a decay outside of 0 to 1, or
            n_epochs below 1.

    >>> import gymnasium as gym
    >>> from device_placement.agents.policies.policies import GraphParsingPolicy
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> Reinforce(GraphParsingPolicy, env).learn(40).num_timesteps
    40
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MultiInputPolicy": MultiInputActorCriticPolicy,
    }

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-4,
        n_steps: int = 20,
        n_epochs: int = 1,
        gamma: float = 0.95,
        credit: str = "own",
        baseline: str = "none",
        decay: float = 0.9,
        normalize_advantage: bool = False,
        ent_coef: float = 0.0,
        max_grad_norm: float = 1e9,
        policy_kwargs: Mapping[str, Any] | None = None,
        _init_setup_model: bool = True,
        **options: Any,
    ) -> None:
        choose("baseline", baseline, BASELINES)
        choose("credit", credit, CREDITS)
        if not 0 <= decay <= 1:
            raise DevicePlacementError(f"Got decay={decay}; it must be from 0 to 1.")
        if n_epochs < 1:
            raise DevicePlacementError(f"Got n_epochs={n_epochs}; it must be 1 or more.")
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=1.0,
            ent_coef=ent_coef,
            vf_coef=0.0,
            max_grad_norm=max_grad_norm,
            use_sde=False,
            sde_sample_freq=-1,
            policy_kwargs=dict(policy_kwargs or {}),
            supported_action_spaces=(spaces.Discrete, spaces.MultiDiscrete),
            _init_setup_model=False,
            **options,
        )
        self.n_epochs, self.credit = n_epochs, credit
        self.baseline, self.decay = baseline, decay
        self.normalize_advantage = normalize_advantage
        self.average: float | None = None  # of the buffers' mean rewards
        if _init_setup_model:
            self._setup_model()

    def train(self) -> None:
        """Update the policy from the buffer in `n_epochs` steps."""
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        self.rollout_buffer.advantages = self._weights()
        buffer = next(self.rollout_buffer.get(batch_size=None))
        actions = buffer.actions
        if isinstance(self.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        for _ in range(self.n_epochs):
            self._update(buffer.observations, actions, buffer.advantages)

    def _update(self, observations: Any, actions: torch.Tensor, weights: torch.Tensor) -> None:
        """Make one gradient step."""
        _, log_prob, entropy = self.policy.evaluate_actions(observations, actions)
        assert entropy is not None
        policy_loss = -(log_prob * weights).sum() / self.n_envs
        loss = policy_loss - self.ent_coef * entropy.sum() / self.n_envs
        self.policy.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.max_grad_norm)
        self.policy.optimizer.step()
        self._n_updates += 1
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/policy_loss", policy_loss.item())
        self.logger.record("train/entropy", entropy.mean().item())

    def _setup_model(self) -> None:
        """Set up like SB3, with values of 0: truncated episodes add them, and none is learned."""
        super()._setup_model()
        assert isinstance(self.policy.value_net, nn.Linear)
        nn.init.zeros_(self.policy.value_net.weight)
        nn.init.zeros_(self.policy.value_net.bias)

    def _weights(self) -> Float32:
        """Return the weight of each action, (n_steps, n_envs), and update the moving average."""
        rewards = self.rollout_buffer.rewards
        mean = float(rewards.mean())
        if self.baseline == "moving_average":
            before = mean if self.average is None else self.average
            self.average = self.decay * before + (1 - self.decay) * mean
            rewards = rewards - before
        elif self.baseline == "mean":
            rewards = rewards - mean
        if self.normalize_advantage:
            rewards = rewards / (rewards.std() + EPSILON)
        weights = self.gamma ** np.arange(len(rewards))[:, None] * rewards
        if self.credit == "buffer":
            weights = np.broadcast_to(weights.sum(axis=0), weights.shape)
        return np.array(weights, dtype=np.float32)
