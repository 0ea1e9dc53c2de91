"""Random graphs in layers."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from device_placement.benchmarks.suite.random_graphs import layered_evaluator, layered_graph
from device_placement.envs import DevicePlacementError


@pytest.mark.parametrize("num_ops", [2, 3, 100, 1000])
def test_a_dag_of_so_many_ops(num_ops: int) -> None:
    graph = layered_graph(num_ops, seed=num_ops)
    assert graph.num_ops == num_ops
    assert (graph.edge_index[0] < graph.edge_index[1]).all()
    assert nx.number_of_selfloops(graph.to_networkx()) == 0
    pairs = set(zip(*graph.edge_index.tolist(), strict=True))
    assert len(pairs) == graph.num_edges
    read = np.bincount(graph.edge_index[1], graph.edge_bytes, minlength=num_ops)
    np.testing.assert_array_equal(graph.bytes_in, read)
    assert num_ops < 100 or 1 < graph.num_edges / num_ops < 3


def test_the_seed_tells_all() -> None:
    one, same, other = (layered_graph(200, seed) for seed in (1, 1, 2))
    for name in ("flops", "edge_index", "edge_bytes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert one.flops.tolist() != other.flops.tolist()


def test_an_evaluator_of_it() -> None:
    evaluator = layered_evaluator("layered:100:7", "desktop", schedule="concurrent", max_groups=10)
    assert evaluator.coarse.num_groups == 10
    assert evaluator.evaluate([0] * 10).valid
    assert evaluator.evaluate([0, 1] * 5).num_subgraphs > 1
    assert layered_evaluator("layered:100", "desktop").coarse.num_groups == 100


@pytest.mark.parametrize(
    "model", ["layered:", "layered:x", "layered:10:-1", "layered:1", "layered:" + "9" * 12]
)
def test_wrong_sizes(model: str) -> None:
    with pytest.raises(DevicePlacementError, match=r"OPS|at least 2"):
        layered_evaluator(model, "desktop")
