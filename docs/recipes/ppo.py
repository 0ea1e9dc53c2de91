"""PPO with action masks in one file of plain torch, on many simulated copies at once.

Run it: python ppo.py --steps 8192
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

import gymnasium as gym
import torch
from torch import nn
from torch.distributions import Categorical


@dataclass
class Settings:
    """All settings of a run."""

    env_id: str = "device_placement.envs:SimulatedDevicePlacementConstruct-v0"
    num_envs: int = 16
    num_steps: int = 64  # of each copy before an update
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    gamma: float = 1.0  # only the last step of an episode is rewarded
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.005
    value: float = 0.5
    max_grad_norm: float = 0.5
    seed: int = 0


class Agent(nn.Module):
    """One network scores every device from what placing the next group there would do."""

    def __init__(self, num_columns: int) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Linear(num_columns, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh()
        )
        self.score = nn.Linear(64, 1)
        self.value = nn.Linear(64, 1)
        nn.init.orthogonal_(self.score.weight, 0.01)
        nn.init.zeros_(self.score.bias)

    def forward(self, devices: torch.Tensor, masks: torch.Tensor):
        """Return the distribution of actions and the values.

        Args:
            devices: (batch, num_devices, num_columns).
            masks: (batch, num_devices) bool; a masked device gets probability 0.
        """
        hidden = self.encode(devices)
        logits = self.score(hidden).squeeze(-1).masked_fill(~masks, -torch.inf)
        return Categorical(logits=logits), self.value(hidden.mean(dim=1)).squeeze(-1)


def train(settings: Settings, steps: int, **problem) -> list[float]:
    """Train, print a line per update, and return the speed-up of each finished placement."""
    torch.manual_seed(settings.seed)
    envs = gym.make_vec(
        settings.env_id,
        settings.num_envs,
        costs="profile",
        reward="log_speedup",
        autoreset_mode="SameStep",
        **problem,
    )
    observation, _ = envs.reset(seed=settings.seed)
    agent = Agent(observation["partial_schedule"].shape[-1])
    optimizer = torch.optim.Adam(agent.parameters(), lr=settings.learning_rate, eps=1e-5)
    shape = settings.num_steps, settings.num_envs
    num_devices = envs.single_action_space.n
    states = torch.zeros(*shape, *observation["partial_schedule"].shape[1:])
    masks = torch.zeros(*shape, num_devices, dtype=torch.bool)
    actions = torch.zeros(shape, dtype=torch.long)
    log_probs, rewards, ends, values = (torch.zeros(shape) for _ in range(4))
    speedups: list[float] = []
    begun = time.perf_counter()
    for update in range(max(1, steps // (settings.num_steps * settings.num_envs))):
        for step in range(settings.num_steps):
            states[step] = torch.tensor(observation["partial_schedule"])
            masks[step] = torch.tensor(envs.action_masks())  # of all copies at once
            with torch.no_grad():
                policy, values[step] = agent(states[step], masks[step])
                actions[step] = policy.sample()
                log_probs[step] = policy.log_prob(actions[step])
            observation, reward, terminated, truncated, infos = envs.step(actions[step].numpy())
            done = terminated | truncated
            rewards[step], ends[step] = torch.tensor(reward), torch.tensor(done)
            if done.any():
                speedups += infos["final_info"]["speedup"][done].tolist()
        with torch.no_grad():
            _, next_value = agent(
                torch.tensor(observation["partial_schedule"]), torch.tensor(envs.action_masks())
            )
        advantages, last = torch.zeros(shape), torch.zeros(settings.num_envs)
        for step in reversed(range(settings.num_steps)):
            continues = 1.0 - ends[step]
            delta = rewards[step] + settings.gamma * next_value * continues - values[step]
            last = delta + settings.gamma * settings.gae_lambda * continues * last
            advantages[step], next_value = last, values[step]
        returns = advantages + values
        flat = [
            one.flatten(0, 1) for one in (states, masks, actions, log_probs, advantages, returns)
        ]
        for _ in range(settings.epochs):
            for rows in torch.randperm(len(flat[0])).chunk(settings.minibatches):
                state, mask, action, old, advantage, target = (one[rows] for one in flat)
                policy, value = agent(state, mask)
                ratio = (policy.log_prob(action) - old).exp()
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
                clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
                loss = -torch.min(ratio * advantage, clipped * advantage).mean()
                loss = loss + settings.value * (value - target).square().mean()
                loss = loss - settings.entropy * policy.entropy().mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), settings.max_grad_norm)
                optimizer.step()
        if speedups:
            rate = (update + 1) * settings.num_steps * settings.num_envs
            rate /= time.perf_counter() - begun
            recent = statistics.mean(speedups[-100:])
            print(f"update {update}: mean speed-up {recent:.3f}, {rate:.0f} steps/s")
    return speedups


def main() -> None:
    """Train on one model, and print the best placement's speed-up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8192)
    problem = {"model": "inception_v3", "hardware": "laptop", "schedule": "concurrent"}
    speedups = train(Settings(), parser.parse_args().steps, max_groups=24, **problem)
    print(f"{len(speedups)} placements, best speed-up over the first device: {max(speedups):.3f}")


if __name__ == "__main__":
    main()
