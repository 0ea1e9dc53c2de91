"""Groups of nodes from scores of edges: join, split to be convex, find first nodes, pool."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from device_placement.envs.arrays import Bool, Float32, Int64
from device_placement.envs.graph.components import components
from device_placement.envs.jit import compiled


def parse(num_nodes: int, edge_index: Tensor, scores: Tensor, min_score: float = 0.0) -> Tensor:
    """Join every node with the neighbour at the other end of its best edge.

    The groups are the connected components of these edges. Every node has one vote, whichever
    way its edges point, so a group has at least two nodes unless a node has no edge that may be
    kept. Of edges with equal scores the first counts as better.

    Args:
        num_nodes: number of nodes.
        edge_index: (2, num_edges) long; no edge joins a node with itself.
        scores: (num_edges,).
        min_score: edges with a lower score are never kept.

    Returns:
        (num_nodes,) long, the group of each node; groups are numbered by their first nodes.

    >>> parse(4, torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.tensor([0.9, 0.1, 0.5]))
    tensor([0, 0, 1, 1])
    """
    ends, values = edge_index.cpu().numpy(), scores.detach().cpu().numpy()
    return torch.from_numpy(_join_best(num_nodes, ends, values, min_score)).to(edge_index.device)


@compiled
def _join_best(num_nodes: int, edge_index: Int64, scores: Float32, min_score: float) -> Int64:
    """Return the labels that `parse` returns, (num_nodes,).

    Three passes: edges, so that of equal scores the first is the best; nodes, to join along the
    best edges by union-find; nodes in ascending order, to number the groups by their first nodes.
    """
    best = np.full(num_nodes, -1)  # each node's best edge; -1: none
    for edge in range(scores.size):
        if scores[edge] >= min_score:
            for node in edge_index[:, edge]:
                if best[node] < 0 or scores[edge] > scores[best[node]]:
                    best[node] = edge
    # A node of the same group that is not larger, and the node itself only for the group's first.
    # So the last pass numbers it before it reaches the node.
    first = np.arange(num_nodes)
    for node in range(num_nodes):
        if best[node] >= 0:
            one, other = edge_index[0, best[node]], edge_index[1, best[node]]
            while first[one] != one:
                one = first[one]
            while first[other] != other:
                other = first[other]
            first[max(one, other)] = min(one, other)
    labels, num_groups = np.empty(num_nodes, dtype=np.int64), 0
    for node in range(num_nodes):
        if first[node] == node:
            labels[node] = num_groups
            num_groups += 1
        else:
            labels[node] = labels[first[node]]
    return labels


def find_leaders(labels: Tensor, allowed: Tensor) -> Tensor:
    """Return the first node of each node's group, graph by graph.

    The nodes of a group without a common device stay alone.

    Args:
        labels: (num_graphs * num_nodes,) groups, each within one graph.
        allowed: (num_graphs, num_nodes, num_devices) bool, which devices a node may use.

    Returns:
        (num_graphs, num_nodes) long, numbers within the graph.

    >>> find_leaders(torch.tensor([0, 1, 0]), torch.ones(1, 3, 1, dtype=torch.bool))
    tensor([[0, 1, 0]])
    """
    return torch.from_numpy(_leaders(labels.cpu().numpy(), allowed.cpu().numpy())).to(labels.device)


@compiled
def _leaders(labels: Int64, allowed: Bool) -> Int64:
    """Return what `find_leaders` returns, (num_graphs, num_nodes).

    Graphs follow one another, so nodes in ascending order find the first of each group, and no
    group spans two graphs.
    """
    num_graphs, num_nodes, num_devices = allowed.shape
    num_labels = labels.max() + 1 if labels.size else 0
    first = np.full(num_labels, -1)  # the first node of each group, over all graphs
    common = np.ones((num_labels, num_devices), dtype=np.bool_)  # devices that all of it may use
    for node in range(labels.size):
        label = labels[node]
        if first[label] < 0:
            first[label] = node
        common[label] &= allowed[node // num_nodes, node % num_nodes]
    leaders = np.empty((num_graphs, num_nodes), dtype=np.int64)
    for node in range(labels.size):
        leader = first[labels[node]] if common[labels[node]].any() else node
        leaders[node // num_nodes, node % num_nodes] = leader % num_nodes
    return leaders


def pool(nodes: Tensor, labels: Tensor, edge_index: Tensor, scores: Tensor) -> Tensor:
    """Return the mean of each group's nodes times its edges' mean score, (num_groups, hidden).

    A group without edges keeps its mean.

    Args:
        nodes: (num_nodes, hidden).
        labels: (num_nodes,) long, below num_groups; unused numbers become rows of zeros.
        edge_index: (2, num_edges).
        scores: (num_edges,).
    """
    num_groups = int(labels.max()) + 1 if labels.numel() else 0
    size = torch.bincount(labels, minlength=num_groups).clamp(min=1)
    sums = nodes.new_zeros(num_groups, nodes.shape[1]).index_add(0, labels, nodes)
    producer, consumer = labels[edge_index]
    inner = producer == consumer
    number = torch.bincount(producer[inner], minlength=num_groups)
    total = scores.new_zeros(num_groups).index_add(0, producer[inner], scores[inner])
    gate = torch.where(number > 0, total / number.clamp(min=1), 1.0)
    return sums / size[:, None] * gate[:, None]


def make_convex(edge_index: Int64, labels: Int64) -> Int64:
    """Split groups only where the graph between them has a cycle; return the new labels.

    Where a path leaves a group of such a cycle and enters it again, the part after that becomes
    a separate group; nothing else is split. Each group of the result is connected, and the
    graph between the groups is acyclic, so no group is executed in several pieces.

    Args:
        edge_index: (2, num_edges) of a DAG whose nodes are numbered in topological order.
        labels: (num_nodes,) the group of each node, 0 to num_groups - 1.

    Returns:
        (num_nodes,) labels; groups are numbered by their first nodes.

    >>> make_convex(np.array([[0, 0, 1], [1, 2, 2]]), np.array([0, 1, 0]))
    array([0, 1, 2])
    """
    num_nodes = labels.size
    producer, consumer = labels[edge_index]
    num_groups = int(labels.max(initial=-1)) + 1
    ring = components(num_groups, np.stack([producer, consumer]), "strong")
    within = edge_index[:, ring[producer] == ring[consumer]]
    entries = _entries(within[:, np.argsort(within[0], kind="stable")], labels)
    same = (producer == consumer) & (entries[edge_index[0]] == entries[edge_index[1]])
    whole = components(num_nodes, edge_index[:, same], "weak")
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[inverse])


@compiled
def _entries(edge_index: Int64, labels: Int64) -> Int64:
    """Return how often, at most, a path to each node enters another group, (num_nodes,).

    The edges are sorted by their producers, and nodes are numbered in topological order: when a
    node's edges come up, all edges into it have been seen, so its own number is final.
    """
    entries = np.zeros(labels.size, dtype=np.int64)
    for edge in range(edge_index.shape[1]):
        producer, consumer = edge_index[0, edge], edge_index[1, edge]
        passed = entries[producer] + (labels[producer] != labels[consumer])
        entries[consumer] = max(entries[consumer], passed)
    return entries
