"""Graph neural networks over padded observations, and an encoder that caches static graphs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor, nn

from device_placement.agents.policies.cost_inputs import (
    NUM_NODE_COSTS,
    STATIC_COSTS,
    num_edge_inputs,
    read_edges,
    read_node_costs,
)
from device_placement.envs.errors import choose


def _library() -> Any:
    """Import PyTorch Geometric when it is needed, as that takes seconds."""
    import torch_geometric.nn

    return torch_geometric.nn


CONVS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "gcn": lambda hidden, _: _library().GCNConv(hidden, hidden),
    "gat": lambda hidden, edges: _library().GATv2Conv(hidden, hidden, edge_dim=edges),
    "gin": lambda hidden, edges: _library().GINEConv(nn.Linear(hidden, hidden), edge_dim=edges),
    "sage": lambda hidden, _: _library().SAGEConv(hidden, hidden),
}
"""Name -> layer by the sizes of embeddings and edge features. ``gat`` (Brody et al. 2022, arXiv
2105.14491) and ``gin`` (Hu et al. 2020, arXiv 1905.12265) read edge features, ``gcn`` (Kipf and
Welling 2017, arXiv 1609.02907) and ``sage`` (Hamilton et al. 2017, arXiv 1706.02216) do not."""

READS_EDGES = ("gat", "gin")
GENERATED = ("propagate", "edge_updater")  # methods that PyTorch Geometric writes for each class
DIRECTIONS = ("both", "undirected")


def make_conv(conv: str, hidden: int, num_edge_features: int) -> nn.Module:
    """Return a layer of `CONVS`, and leave no file of PyTorch Geometric.

    It generates a module for each class of layers, and loads it once per process from a file in
    the temporary folder that it doesn't remove.

    Raises:
        DevicePlacementError: on an unknown conv.
    """
    layer = choose("graph convolution", conv, CONVS)(hidden, num_edge_features)
    prefix = f"{type(layer).__module__}_{type(layer).__name__}"
    for method in GENERATED:
        module = sys.modules.get(f"{prefix}_{method}")
        for path in (getattr(module, "__file__", None), getattr(module, "__cached__", None)):
            if path:
                with contextlib.suppress(OSError):  # another thread has removed it
                    Path(path).unlink(missing_ok=True)
    return layer


class Graphs(NamedTuple):
    """Padded graphs of a batch as one graph without edges between them."""

    edge_index: Tensor  # (2, num_edges) long; graph b begins at node b * max_groups
    edge_features: Tensor  # (num_edges, num_edge_features)
    node_mask: Tensor  # (batch, max_groups) bool


class MessageLayer(nn.Module):
    """One round of messages, added to the embeddings.

    Args:
        hidden: size of a node's embedding.
        num_edge_features: size of an edge's features.
        conv: a name of `CONVS`.
        direction: ``both`` passes messages along the edges and against them, with separate
            weights, as the graph is a DAG; ``undirected`` takes every edge as two.
        residual: add the messages to the embedding, instead of replacing it.
        norm: normalise the messages (LayerNorm).
        dropout: share of the messages' values that is dropped in training.

    Shapes:
        input: (num_nodes, hidden), (2, num_edges), (num_edges, num_edge_features).
        output: (num_nodes, hidden).

    Raises:
        DevicePlacementError: on an unknown conv or direction.
    """

    def __init__(
        self,
        hidden: int,
        num_edge_features: int,
        conv: str = "gin",
        direction: str = "both",
        residual: bool = True,
        norm: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        choose("direction", direction, dict.fromkeys(DIRECTIONS))
        self.reads_edges = conv in READS_EDGES
        self.residual = residual
        sizes = hidden, num_edge_features
        self.along = make_conv(conv, *sizes)
        self.against = make_conv(conv, *sizes) if direction == "both" else None
        self.norm = nn.LayerNorm(hidden) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        """Return embeddings that cover one more step of the graph."""
        back = edge_index.flip(0)
        if self.against is None:
            edge_index = torch.cat([edge_index, back], dim=1)
            edge_features = edge_features.repeat(2, 1)
        received = self._pass(self.along, nodes, edge_index, edge_features)
        if self.against is not None:
            received = received + self._pass(self.against, nodes, back, edge_features)
        received = self.dropout(torch.relu(self.norm(received)))
        result: Tensor = nodes + received if self.residual else received
        return result

    def _pass(
        self, conv: nn.Module, nodes: Tensor, edge_index: Tensor, edge_features: Tensor
    ) -> Tensor:
        given = (edge_features,) if self.reads_edges else ()
        received: Tensor = conv(nodes, edge_index, *given)
        return received


class GraphEncoder(nn.Module):
    """Rounds of messages over padded graphs.

    Args:
        hidden: size of a node's embedding.
        num_edge_features: size of an edge's features.
        layers: rounds of messages.
        options: further arguments of `MessageLayer`: ``conv``, ``direction``, ``residual``,
            ``norm`` and ``dropout``.

    Shapes:
        input: (batch, max_groups, hidden), and the graphs of the batch.
        output: (batch, max_groups, hidden).

    >>> encoder = GraphEncoder(8, num_edge_features=2, layers=3, conv="sage")
    >>> edges = torch.tensor([[0, 1], [1, 2]])
    >>> graphs = Graphs(edges, torch.zeros(2, 2), torch.ones(1, 3, dtype=torch.bool))
    >>> encoder(torch.zeros(1, 3, 8), graphs).shape
    torch.Size([1, 3, 8])
    """

    def __init__(
        self,
        hidden: int,
        num_edge_features: int,
        layers: int = 2,
        **options: Any,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            MessageLayer(hidden, num_edge_features, **options) for _ in range(layers)
        )

    def forward(self, nodes: Tensor, graphs: Graphs) -> Tensor:
        """Return embeddings that cover `layers` steps around each node."""
        flat = nodes.flatten(0, 1)
        for layer in self.layers:
            flat = layer(flat, graphs.edge_index, graphs.edge_features)
        return flat.reshape(nodes.shape)


def read_graphs(observations: TensorDict) -> Graphs:
    """Join the real edges of a batch of observations into one graph."""
    real = observations["edge_mask"].bool()
    node_mask = observations["node_mask"].bool()
    edge_index = observations["edge_index"].long()  # SB3 casts every Box to float32
    first = torch.arange(len(real), device=real.device)[:, None, None] * node_mask.shape[1]
    joined = (edge_index + first).transpose(0, 1)
    return Graphs(joined[:, real], read_edges(observations)[real], node_mask)


def masked_mean(nodes: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the real nodes, (batch, hidden).

    Args:
        nodes: (batch, max_groups, hidden).
        mask: (batch, max_groups), 1 for each real node.
    """
    weights = mask.float()[:, None, :]
    return (weights @ nodes).squeeze(1) / weights.sum(dim=2).clamp(min=1.0)


HEADS = 4  # of attention

STATIC = (
    "node_features",
    "node_mask",
    "edge_index",
    "edge_features",
    "edge_mask",
    "device_mask",
    "device_features",
    *STATIC_COSTS,
)
"""Keys of an observation that are the same for all observations of one model, if it has them."""


def distinct_graphs(observations: TensorDict) -> tuple[TensorDict, Tensor]:
    """Return each graph of a batch once, however many rows hold it.

    Rows with one ``graph_id`` count as one graph if their graphs are equal; if any differ, every
    row counts as a separate graph.

    Returns:
        The `STATIC` part of the observations with one row per graph, and (batch,) each row's
        graph.
    """
    static = {key: observations[key] for key in STATIC if key in observations}
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


class CachedEncoder(nn.Module):
    """Encoder of graphs that keeps its last result between the steps of a rollout.

    A subclass defines `encode`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._weights: list[Tensor] = []  # cached, as collecting them takes longer than a step
        self._last: tuple[list[tuple[int, int]], TensorDict, Any] | None = None

    def encode(self, static: TensorDict) -> Any:
        """Return what is known of the graphs that `distinct_graphs` returned."""
        raise NotImplementedError

    def forward(self, static: TensorDict) -> Any:
        """Return what `encode` does, or its last result while graphs and weights are the same."""
        if self.training or torch.is_grad_enabled():
            self._last = None  # a step may follow, and fused optimizers do not change versions
            return self.encode(static)
        self._weights = self._weights or [*self.parameters()]
        version = [(weight._version, weight.data_ptr()) for weight in self._weights]
        if self._last is None or self._last[0] != version or not _equal(self._last[1], static):
            kept = {key: array.clone() for key, array in static.items()}
            self._last = version, kept, self.encode(static)
        return self._last[2]


class StaticEncoder(CachedEncoder):
    """Embeddings of a model's groups, independent of their placement.

    Args:
        num_features: of a node.
        hidden: size of an embedding.
        attention: layers after the encoder in which every group attends to all of its graph.
        costs: whether costs are seen.
        options: further arguments of `GraphEncoder`.

    Shapes:
        output: (num_graphs, max_groups, hidden).
    """

    def __init__(
        self,
        num_features: int,
        hidden: int,
        attention: int = 0,
        costs: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(num_features, hidden)
        self.embed_costs = nn.Linear(NUM_NODE_COSTS, hidden) if costs else None
        self.norm = nn.LayerNorm(hidden)
        self.encoder = GraphEncoder(hidden, num_edge_inputs(costs), **options)
        self.attention = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, HEADS, 2 * hidden, dropout=0.0, batch_first=True, norm_first=True
            )
            for _ in range(attention)
        )

    def encode(self, static: TensorDict) -> Tensor:
        """Return the embeddings of the graphs that `distinct_graphs` returned."""
        features = self.embed(static["node_features"].float())
        centred = self.norm(features - masked_mean(features, static["node_mask"])[:, None])
        if self.embed_costs is not None:
            centred = centred + self.embed_costs(read_node_costs(static))
        nodes: Tensor = self.encoder(torch.relu(centred), read_graphs(static))
        padding = ~static["node_mask"].bool()
        for layer in self.attention:
            nodes = layer(nodes, src_key_padding_mask=padding)
        return nodes


def _equal(one: TensorDict, other: TensorDict) -> bool:
    """Return whether two batches are equal and on the same device."""
    return all(
        array.device == other[key].device and torch.equal(array, other[key])
        for key, array in one.items()
    )
