"""PPO with action masks in TorchRL.

Run it: python torchrl_ppo.py --frames 8192
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import (
    ActionMask,
    Compose,
    DTypeCastTransform,
    GymWrapper,
    InitTracker,
    RewardSum,
    TransformedEnv,
)
from torchrl.modules import MaskedCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

FRAMES = 512  # per update
MINIBATCH = 128


class WithMask(gym.ObservationWrapper):
    """What placing the next group on each device would do, and which devices are allowed."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        inner = env.observation_space["partial_schedule"]
        self.observation_space = spaces.Dict(
            {"observation": inner, "action_mask": spaces.MultiBinary(int(env.action_space.n))}
        )

    def observation(self, observation: dict) -> dict:
        """Return the two parts of an observation that the agent needs."""
        mask = self.get_wrapper_attr("action_masks")()
        return {
            "observation": observation["partial_schedule"],
            "action_mask": mask.astype(np.int8),
        }


class Scores(nn.Module):
    """Score each device by the same network; or, for a value, take the mean over the devices."""

    def __init__(self, num_columns: int, mean: bool) -> None:
        super().__init__()
        self.mean = mean
        self.layers = nn.Sequential(
            nn.Linear(num_columns, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)
        )

    def forward(self, devices: torch.Tensor) -> torch.Tensor:
        """Turn (..., num_devices, num_columns) into (..., num_devices), or (..., 1)."""
        scores = self.layers(devices).squeeze(-1)
        return scores.mean(-1, keepdim=True) if self.mean else scores


def make_env() -> TransformedEnv:
    """Return the environment, whose action spec follows the mask."""
    env = gym.make(
        "device_placement.envs:SimulatedDevicePlacementConstruct-v0",
        model="inception_v3",
        hardware="laptop",
        schedule="concurrent",
        max_groups=24,
        costs="profile",
        reward="log_speedup",
    )
    wrapped = GymWrapper(WithMask(env), categorical_action_encoding=True)
    as_bool = DTypeCastTransform(torch.int8, torch.bool, in_keys=["action_mask"])
    return TransformedEnv(wrapped, Compose(as_bool, ActionMask(), InitTracker(), RewardSum()))


def train(frames: int, seed: int = 0) -> list[float]:
    """Train, print a line per update, and return the speed-up of each finished placement."""
    torch.manual_seed(seed)
    env = make_env()
    env.set_seed(seed)
    num_columns = env.observation_spec["observation"].shape[-1]
    scores = TensorDictModule(Scores(num_columns, mean=False), ["observation"], ["logits"])
    actor = ProbabilisticActor(
        scores,
        in_keys={"logits": "logits", "mask": "action_mask"},
        spec=env.action_spec,
        distribution_class=MaskedCategorical,
        return_log_prob=True,
    )
    critic = ValueOperator(Scores(num_columns, mean=True), in_keys=["observation"])
    advantage = GAE(gamma=1.0, lmbda=0.95, value_network=critic, average_gae=True)
    loss_module = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_coeff=0.005)
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=1e-3)
    collector = Collector(env, actor, frames_per_batch=FRAMES, total_frames=max(frames, FRAMES))
    speedups: list[float] = []
    for update, data in enumerate(collector):
        done = data["next", "done"].squeeze(-1)
        speedups += data["next", "episode_reward"][done].exp().flatten().tolist()
        for _ in range(4):
            with torch.no_grad():
                advantage(data)
            for rows in torch.randperm(FRAMES).split(MINIBATCH):
                losses = loss_module(data.reshape(-1)[rows])
                parts = ("loss_objective", "loss_critic", "loss_entropy")
                loss = sum(losses[part] for part in parts)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(loss_module.parameters(), 0.5)
                optimizer.step()
        recent = speedups[-40:]
        print(f"update {update}: mean speed-up {sum(recent) / len(recent):.3f}")
    collector.shutdown()
    return speedups


def main() -> None:
    """Train on one model, and print the best placement's speed-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=8192)
    speedups = train(parser.parse_args().frames)
    print(f"{len(speedups)} placements, best speed-up over the first device: {max(speedups):.3f}")


if __name__ == "__main__":
    main()
