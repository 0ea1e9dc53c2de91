import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import COARSENING_METHODS, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.partition import heavy_pairs
from graphs import check, graphs, layered, make_graph, partition, quotient_of

methods = st.sampled_from(sorted(COARSENING_METHODS))


@given(graphs(), methods)
def test_result_is_a_partition_with_an_acyclic_quotient(graph: ComputationGraph, method: str):
    check(graph, coarsen(graph, method))


@given(graphs(any_support=False), methods, st.integers(1, 8))
def test_max_groups_is_reached_when_devices_run_everything(
    graph: ComputationGraph, method: str, max_groups: int
):
    coarse = coarsen(graph, method, max_groups)
    check(graph, coarse)
    assert coarse.num_groups == min(max_groups, coarsen(graph, method).num_groups)


@given(graphs(), methods, st.integers(1, 8))
def test_max_groups_is_reached_or_refused(graph: ComputationGraph, method: str, max_groups: int):
    try:
        coarse = coarsen(graph, method, max_groups)
    except DevicePlacementError as error:
        reachable = int(str(error).split("leaves ")[1].split()[0])
        assert reachable > max_groups
        coarse = coarsen(graph, method, reachable)
        assert coarse.num_groups == reachable
    else:
        assert coarse.num_groups <= max_groups
    check(graph, coarse)


@given(graphs(any_support=False), methods)
def test_constants_share_a_group_with_a_consumer(graph: ComputationGraph, method: str):
    coarse = coarsen(graph, method)
    for op in np.flatnonzero(graph.is_constant):
        consumers = graph.edge_index[1, graph.edge_index[0] == op]
        if len(consumers):
            assert coarse.op_group[op] in coarse.op_group[consumers]
        else:
            others = np.flatnonzero(coarse.op_group == coarse.op_group[op])
            assert all(graph.is_constant[o] or graph.op_types[o] == "Result" for o in others)


@given(graphs(any_support=False), st.sampled_from(["fusion", "colocation"]))
def test_lone_parameters_and_results_join_a_neighbour(graph: ComputationGraph, method: str):
    coarse = coarsen(graph, method)
    for op, kind in enumerate(graph.op_types):
        feeds_none = not (graph.edge_index[0] == op).any()
        fed_by_none = not (graph.edge_index[1] == op).any()
        if (kind == "Parameter" and not feeds_none) or (kind == "Result" and not fed_by_none):
            assert (coarse.op_group == coarse.op_group[op]).sum() > 1


@given(graphs(any_support=False))
def test_fusion_keeps_sets_whole_and_ops_outside_alone(graph: ComputationGraph):
    coarse = coarsen(graph, "fusion")
    computed = [[op for op in s if not graph.is_constant[op]] for s in graph.fusion_sets]
    label = np.arange(graph.num_ops)
    for ops in computed:
        label[ops] = ops[0] if ops else 0
    cyclic = {
        group
        for component in nx.strongly_connected_components(quotient_of(graph, label))
        if len(component) > 1
        for group in component
    }
    for ops in computed:
        if ops and label[ops[0]] not in cyclic:
            assert len(set(coarse.op_group[ops].tolist())) == 1
    movable = graph.is_constant | np.isin(graph.op_types, ["Parameter", "Result"])
    set_of = {op: number for number, ops in enumerate(computed) for op in ops}
    for ops in partition(coarse):
        assert len({set_of.get(op, -1 - op) for op in ops if not movable[op]}) <= 1


@given(graphs(max_ops=8, any_support=False, plain=True))
def test_fusion_splits_no_more_than_needed(graph: ComputationGraph):
    """Pieces of a set next to each other can't be put together again."""
    group = coarsen(graph, "fusion").op_group
    for ops in graph.fusion_sets:
        pairs = {(group[a], group[b]) for a, b in itertools.pairwise(ops)}
        for one, other in pairs:
            merged = np.where(group == other, one, group)
            assert one == other or not nx.is_directed_acyclic_graph(quotient_of(graph, merged))


@given(graphs(any_support=False))
def test_pairs_that_merge_in_one_round_make_no_cycle(graph: ComputationGraph):
    coarse = coarsen(graph, "none")
    label = np.arange(coarse.num_groups)
    for u, v in heavy_pairs(graph, coarse.op_group.astype(np.int64), graph.num_ops):
        assert label[u] == u
        assert label[v] == v
        label[v] = u
    assert nx.is_directed_acyclic_graph(quotient_of(graph, label[coarse.op_group]))


@given(graphs(), methods)
def test_groups_that_could_come_next_go_by_their_smallest_op(graph: ComputationGraph, method: str):
    coarse = coarsen(graph, method)
    smallest = [ops[0] for ops in partition(coarse)]
    quotient = quotient_of(graph, coarse.op_group)
    order = nx.lexicographical_topological_sort(quotient, key=smallest.__getitem__)
    assert list(order) == list(range(coarse.num_groups))


@pytest.fixture(scope="module", params=["chain", "layers", "isolated", "hub"])
def fifty_thousand_ops(request: pytest.FixtureRequest) -> ComputationGraph:
    num_ops = 50_000
    shapes = {
        "chain": lambda: make_graph([(op, op + 1) for op in range(num_ops - 1)]),
        "layers": lambda: layered(num_ops, width=500),
        "isolated": lambda: make_graph([], num_ops),
        "hub": lambda: make_graph([(0, op) for op in range(1, num_ops)]),
    }
    return shapes[request.param]()


@pytest.mark.parametrize("method", ["none", "fusion"])
def test_fifty_thousand_ops(fifty_thousand_ops: ComputationGraph, method: str):
    graph = fifty_thousand_ops
    coarse = coarsen(graph, method, max_groups=64)
    check(graph, coarse)
    assert coarse.num_groups == 64
    assert np.bincount(coarse.op_group).max() < graph.num_ops / 10  # no group swallows the rest


@settings(max_examples=20)
@given(graphs(max_ops=60, any_support=False), methods, st.integers(1, 64))
def test_larger_graphs(graph: ComputationGraph, method: str, max_groups: int):
    coarse = coarsen(graph, method, max_groups)
    check(graph, coarse)
    assert coarse.num_groups <= max_groups
