"""Policy of Mirhoseini et al. 2017 (arXiv 1706.04972): one group's device after the other."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import Tensor, nn

from device_placement.agents.sequences import AttentionDecoder, Encoded, SequenceEncoder
from device_placement.envs.errors import DevicePlacementError


class RnnPolicy(ActorCriticPolicy):
    """Mirhoseini et al. 2017: an LSTM reads the groups, another one gives each its device in turn.

    For PPO, A2C and `Reinforce`, in ``assign``. Devices that may not run a group have probability
    0. Padding is skipped: it gets device 0. Weights fit any model, on as many devices.

    Args:
        observation_space: of a `DevicePlacementEnv`.
        action_space: of the same, in ``assign``.
        lr_schedule: the learning rate by the training's progress.
        options: what `ActorCriticPolicy` takes; ``features_extractor_kwargs`` are those of
            `SequenceEncoder`.

    Raises:
        DevicePlacementError: in another formulation.

    >>> import gymnasium as gym
    >>> from device_placement.agents.reinforce import Reinforce
    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> Reinforce(RnnPolicy, env, baseline="moving_average").learn(40).num_timesteps
    40
    """

    extractor = SequenceEncoder

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Space[Any],
        lr_schedule: Schedule,
        **options: Any,
    ) -> None:
        if not isinstance(action_space, spaces.MultiDiscrete):
            raise DevicePlacementError(
                "A device is chosen with those of the groups before it in mind, so this policy "
                "needs whole placements; use formulation='assign'."
            )
        options["features_extractor_class"] = self.extractor
        options["share_features_extractor"] = True
        super().__init__(observation_space, action_space, lr_schedule, **options)

    def _build(self, lr_schedule: Schedule) -> None:
        """The decoder, the value, which begins at 0, and the optimizer."""
        assert isinstance(self.action_space, spaces.MultiDiscrete)
        self.decoder = AttentionDecoder(self.features_dim, int(self.action_space.nvec[0]))
        self.value_net = nn.Linear(self.features_dim, 1)
        nn.init.zeros_(self.value_net.weight)
        nn.init.zeros_(self.value_net.bias)
        make: Any = self.optimizer_class
        self.optimizer = make(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def encode(self, obs: PyTorchObs) -> Encoded:
        """What the decoder and the value read."""
        encoded: Any = self.extract_features(obs)
        assert isinstance(encoded, Encoded)
        return encoded

    def forward(
        self, obs: PyTorchObs, deterministic: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, max_groups) devices, (batch, 1) values, and (batch,) log-probabilities."""
        encoded = self.encode(obs)
        chosen, log_probs = self.decoder.choose(encoded, deterministic)
        actions = chosen.new_zeros(len(chosen), *(self.action_space.shape or ()))
        actions[:, : chosen.shape[1]] = chosen.masked_fill(encoded.padding, 0)
        log_prob = log_probs.masked_fill(encoded.padding, 0.0).sum(dim=1)
        return actions, self.value_net(encoded.hidden), log_prob

    def evaluate_actions(
        self, obs: PyTorchObs, actions: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(batch, 1) values, (batch,) log-probabilities and (batch,) entropies of placements.

        The entropy is the sum over the groups of that of a group's device, given the devices of
        the groups before it in `actions`; its mean over what is drawn is the policy's.
        """
        encoded = self.encode(obs)
        devices = actions[:, : encoded.padding.shape[1]].long()
        each = self.decoder.follow(encoded, devices).masked_fill(encoded.padding[:, :, None], 0.0)
        log_prob = each.gather(2, devices[:, :, None]).sum(dim=(1, 2))
        entropy = -(each.exp() * each).sum(dim=(1, 2))
        return self.value_net(encoded.hidden), log_prob, entropy

    def predict_values(self, obs: PyTorchObs) -> Tensor:
        """(batch, 1) values."""
        values: Tensor = self.value_net(self.encode(obs).hidden)
        return values

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        """There is none in closed form, as a group's device depends on those before it.

        Raises:
            DevicePlacementError: always.
        """
        raise DevicePlacementError("Placements have no closed distribution; use evaluate_actions.")

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> Tensor:
        actions: Tensor = self(observation, deterministic)[0]
        return actions
