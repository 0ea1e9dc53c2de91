from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from device_placement.agents.policies.node_groups import make_convex, parse


def by_definition(num_nodes: int, edges: list[tuple[int, int]], scores: list[float]) -> list[int]:
    """The groups of the published algorithm, in the plainest way."""
    joined: nx.Graph[int] = nx.Graph()
    joined.add_nodes_from(range(num_nodes))
    for node in range(num_nodes):
        mine = [number for number, edge in enumerate(edges) if node in edge]
        if mine:
            joined.add_edge(*edges[max(mine, key=lambda number: (scores[number], -number))])
    label = {}
    for number, group in enumerate(sorted(map(sorted, nx.connected_components(joined)))):
        label |= dict.fromkeys(group, number)
    return [label[node] for node in range(num_nodes)]


def as_index(edges: list[tuple[int, int]]) -> Tensor:
    return torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T


@pytest.mark.parametrize(
    ("edges", "scores", "expected"),
    [
        # A path of five: 0-1 best for both, 2 votes for 1-2, 3-4 for both; all but one edge.
        ([(0, 1), (1, 2), (2, 3), (3, 4)], [0.9, 0.5, 0.2, 0.4], [0, 0, 0, 1, 1]),
        # The same path with its middle edge best: the ends can only follow.
        ([(0, 1), (1, 2), (2, 3), (3, 4)], [0.1, 0.3, 0.8, 0.2], [0, 0, 0, 0, 0]),
        # A diamond, 0 to 1 and 2, both to 3.
        ([(0, 1), (0, 2), (1, 3), (2, 3)], [0.6, 0.1, 0.2, 0.7], [0, 0, 1, 1]),
        # Equal scores: the first edge of each node wins.
        ([(0, 1), (0, 2), (1, 3), (2, 3)], [0.5] * 4, [0, 0, 0, 0]),
        # A star: every leaf votes for the centre.
        ([(0, 1), (0, 2), (0, 3)], [0.1, 0.2, 0.3], [0, 0, 0, 0]),
    ],
)
def test_small_graphs_by_hand(
    edges: list[tuple[int, int]], scores: list[float], expected: list[int]
) -> None:
    found = parse(max(map(max, edges)) + 1, as_index(edges), torch.tensor(scores))
    assert found.tolist() == expected == by_definition(len(expected), edges, scores)


def test_nodes_without_edges_are_alone() -> None:
    assert parse(3, as_index([]), torch.zeros(0)).tolist() == [0, 1, 2]
    assert parse(4, as_index([(1, 3)]), torch.zeros(1)).tolist() == [0, 1, 2, 1]


@st.composite
def dags(draw: st.DrawFn) -> tuple[int, list[tuple[int, int]]]:
    num_nodes = draw(st.integers(2, 12))
    pairs = [(u, v) for u in range(num_nodes) for v in range(u + 1, num_nodes)]
    return num_nodes, draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=24))


@settings(max_examples=200, deadline=None)
@given(dags(), st.data())
def test_groups_are_those_of_the_definition(
    dag: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    num_nodes, edges = dag
    drawn = data.draw(st.lists(st.integers(0, 5), min_size=len(edges), max_size=len(edges)))
    scores = [one / 8 for one in drawn]
    found = parse(num_nodes, as_index(edges), torch.tensor(scores))
    assert found.tolist() == by_definition(num_nodes, edges, scores)


def test_a_batch_is_parsed_as_each_of_its_graphs() -> None:
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for num_nodes in (5, 9, 2, 14):
        pairs = torch.combinations(torch.arange(num_nodes))
        chosen = pairs[torch.rand(len(pairs), generator=generator) < 0.4].T
        graphs.append((num_nodes, chosen, torch.rand(chosen.shape[1], generator=generator)))
    alone = [parse(*graph) for graph in graphs]
    starts = np.cumsum([0, *(num_nodes for num_nodes, _, _ in graphs)])
    joined = parse(
        int(starts[-1]),
        torch.cat(
            [edges + int(start) for (_, edges, _), start in zip(graphs, starts, strict=False)],
            dim=1,
        ),
        torch.cat([scores for _, _, scores in graphs]),
    )
    groups = np.cumsum([0, *(int(labels.max()) + 1 for labels in alone)])
    assert joined.tolist() == [
        label + int(start)
        for labels, start in zip(alone, groups, strict=False)
        for label in labels.tolist()
    ]


@settings(max_examples=200, deadline=None)
@given(dags(), st.data())
def test_convex_groups_are_connected_and_their_graph_has_no_cycle(
    dag: tuple[int, list[tuple[int, int]]], data: st.DataObject
) -> None:
    num_nodes, edges = dag
    drawn = data.draw(st.lists(st.integers(0, 5), min_size=len(edges), max_size=len(edges)))
    index = as_index(edges)
    labels = parse(num_nodes, index, torch.tensor(drawn, dtype=torch.float32)).numpy()
    convex = make_convex(index.numpy(), labels)
    quotient: nx.DiGraph[int] = nx.DiGraph(
        (int(convex[u]), int(convex[v])) for u, v in edges if convex[u] != convex[v]
    )
    assert nx.is_directed_acyclic_graph(quotient)
    inner = nx.Graph([(u, v) for u, v in edges if convex[u] == convex[v]])
    inner.add_nodes_from(range(num_nodes))
    pieces = {tuple(sorted(piece)) for piece in nx.connected_components(inner)}
    groups = {tuple(np.flatnonzero(convex == one).tolist()) for one in np.unique(convex)}
    assert groups == pieces
    assert all(len(set(labels[list(group)].tolist())) == 1 for group in groups)
    whole = nx.DiGraph((int(labels[u]), int(labels[v])) for u, v in edges if labels[u] != labels[v])
    if nx.is_directed_acyclic_graph(whole):
        assert convex.tolist() == labels.tolist()


def test_only_groups_of_a_cycle_are_split() -> None:
    # 0 and 2 make a group around 1; 3 and 4, behind them, are no part of the cycle.
    edges = np.array([[0, 0, 1, 2, 3], [1, 2, 2, 3, 4]])
    assert make_convex(edges, np.array([0, 1, 0, 2, 2])).tolist() == [0, 1, 2, 3, 3]
