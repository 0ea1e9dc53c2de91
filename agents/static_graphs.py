"""The graphs of a batch, each encoded once, however many observations are of it."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.agents.gnn import GraphEncoder, masked_mean, read_graphs
from device_placement.envs.observation import NUM_EDGE_FEATURES

HEADS = 4  # of attention

STATIC = (
    "node_features",
    "node_mask",
    "edge_index",
    "edge_features",
    "edge_mask",
    "device_mask",
    "device_features",
)
"""What all observations of one model have in common."""


def distinct_graphs(observations: TensorDict) -> tuple[TensorDict, Tensor]:
    """The graphs of a batch, each once, however many rows hold it.

    Rows with one ``graph_id`` count as one graph if nothing that describes the graph differs
    between them; where anything does, every row is a graph of its own.

    Returns:
        The `STATIC` part of the observations with a row a graph, and (batch,) which is each
        row's.
    """
    static = {key: observations[key] for key in STATIC}
    graph_id = observations["graph_id"].flatten()
    if len(graph_id) == 1:  # each step of a rollout
        return static, torch.zeros_like(graph_id, dtype=torch.long)
    ids, graph = torch.unique(graph_id, return_inverse=True)
    rows = torch.arange(len(graph), device=graph.device)
    first = torch.full_like(ids, len(graph), dtype=torch.long)
    first.scatter_reduce_(0, graph, rows, "amin")
    if all(torch.equal(array, array[first][graph]) for array in static.values()):
        return {key: array[first] for key, array in static.items()}, graph
    return static, rows


class StaticEncoder(nn.Module):
    """Embeddings of a model's groups that do not depend on where they are.

    Args:
        num_features: of a node.
        hidden: size of an embedding.
        attention: layers behind the encoder in which every group attends to all of its graph.
        options: what `GraphEncoder` takes besides.

    Shapes:
        output: (num_graphs, max_groups, hidden).
    """

    def __init__(self, num_features: int, hidden: int, attention: int = 0, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.encoder = GraphEncoder(hidden, NUM_EDGE_FEATURES, **options)
        self.attention = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, HEADS, 2 * hidden, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(attention)
        )
        self._weights: list[Tensor] = []  # kept, as asking for them takes longer than a step
        self._last: tuple[list[tuple[int, int]], TensorDict, Tensor] | None = None

    def forward(self, static: TensorDict) -> Tensor:
        """The embeddings of the graphs that `distinct_graphs` gave.

        Those of the last call are returned as they are where neither graphs nor weights have
        changed since, as from step to step of a rollout.
        """
        if self.training or torch.is_grad_enabled():
            self._last = None  # a step may follow, and fused optimizers leave versions as they are
            return self._encode(static)
        self._weights = self._weights or [*self.parameters()]
        version = [(weight._version, weight.data_ptr()) for weight in self._weights]
        if self._last is None or self._last[0] != version or not _equal(self._last[1], static):
            kept = {key: array.clone() for key, array in static.items()}
            self._last = version, kept, self._encode(static)
        return self._last[2]

    def _encode(self, static: TensorDict) -> Tensor:
        features = self.embed(static["node_features"].float())
        centred = features - masked_mean(features, static["node_mask"])[:, None]
        nodes: Tensor = self.encoder(torch.relu(self.norm(centred)), read_graphs(static))
        padding = ~static["node_mask"].bool()
        for layer in self.attention:
            nodes = layer(nodes, src_key_padding_mask=padding)
        return nodes


def _equal(one: TensorDict, other: TensorDict) -> bool:
    """Whether two batches hold the same, on the same device."""
    return all(
        array.device == other[key].device and torch.equal(array, other[key])
        for key, array in one.items()
    )
