"""REINFORCE with a graph network of PyTorch Geometric on graphs of different sizes, unpadded.

Run it: python graph_network.py --episodes 1000
"""

from __future__ import annotations

import argparse
import statistics

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch_geometric.data import Batch, Data
from torch_geometric.nn import SAGEConv
from torch_geometric.utils import to_undirected

from device_placement.agents import to_pyg
from device_placement.envs import GraphObservation

BATCH = 20  # episodes per update
ENTROPY = 0.1  # weight of the bonus that keeps it exploring


class Network(nn.Module):
    """Two rounds of messages along the edges, then a score for each group and device."""

    def __init__(self, num_columns: int, num_devices: int, hidden: int = 64) -> None:
        super().__init__()
        self.inputs = nn.Linear(num_columns, hidden)
        self.rounds = nn.ModuleList([SAGEConv(hidden, hidden) for _ in range(2)])
        self.scores = nn.Linear(hidden, num_devices)

    def forward(self, data: Data) -> torch.distributions.Categorical:
        """Return the distribution of each group's device; masked devices have probability 0."""
        edges = to_undirected(data.edge_index, num_nodes=data.num_nodes)
        hidden = self.inputs(data.x).relu()
        for layer in self.rounds:
            hidden = hidden + layer(hidden, edges).relu()
        scores = self.scores(hidden).masked_fill(~data.action_mask, -torch.inf)
        return torch.distributions.Categorical(logits=scores)


def train(env: gym.Env, episodes: int, seed: int = 0) -> list[float]:
    """Train, and return the speed-up over the reference device of each episode's placement.

    Args:
        env: a `GraphObservation` with horizon=1, so that an episode is one placement.
        episodes: to learn from.
        seed: of the weights, the draws and the models.
    """
    torch.manual_seed(seed)
    observation, _ = env.reset(seed=seed)
    first = to_pyg(observation)
    network = Network(first.x.shape[1], first.device_mask.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    speedups: list[float] = []
    while len(speedups) < episodes:
        graphs, actions, rewards = [], [], []
        for _ in range(BATCH):
            data = to_pyg(observation)
            with torch.no_grad():
                action = network(data).sample()
            _, reward, _, _, info = env.step(action.numpy())
            graphs.append(data)
            actions.append(action)
            rewards.append(float(reward))
            speedups.append(info["speedup"])
            observation, _ = env.reset()
        batch = Batch.from_data_list(graphs)
        distribution = network(batch)
        log_probs = distribution.log_prob(torch.cat(actions))
        # Each model has a baseline of its own, as their speed-ups differ.
        models, advantages = batch.graph_id.flatten(), torch.tensor(rewards)
        for model in models.unique():
            own = models == model
            advantages[own] = (advantages[own] - advantages[own].mean()) / (
                advantages[own].std(unbiased=False) + 1e-6
            )
        loss = -(advantages[batch.batch] * log_probs).sum() / BATCH
        loss -= ENTROPY * distribution.entropy().sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return speedups


def main() -> None:
    """Train on two models, and print how much better the last placements are than the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=1000)
    episodes = parser.parse_args().episodes
    env = gym.make(
        "device_placement.envs:SimulatedDevicePlacement-v0",
        model=["inception_v3", "two_towers"],  # each episode draws one
        hardware="laptop",
        schedule="concurrent",
        max_groups=24,
        horizon=1,
        reward="log_speedup",
        costs="profile",  # agents see what groups and moves cost
    )
    speedups = train(GraphObservation(env), episodes)
    some = max(1, min(100, episodes // 4))
    first, last = statistics.mean(speedups[:some]), statistics.mean(speedups[-some:])
    print(f"{len(speedups)} placements of two models")
    print(f"mean speed-up over the first device: {first:.3f} at first, {last:.3f} at last")
    print(f"best: {np.nanmax(speedups):.3f}")


if __name__ == "__main__":
    main()
