import itertools
import os
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from graphs import graphs, layered, make_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from device_placement.envs.coarsening import COARSENING_METHODS, CoarseGraph, coarsen
from device_placement.envs.contraction import heavy_pairs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph import ComputationGraph

methods = st.sampled_from(sorted(COARSENING_METHODS))


def partition(coarse: CoarseGraph) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(coarse.num_groups)]
    for op, group in enumerate(coarse.op_group.tolist()):
        members[group].append(op)
    return members


def quotient_of(graph: ComputationGraph, op_group: np.ndarray) -> nx.DiGraph:
    result: nx.DiGraph = nx.DiGraph()
    result.add_nodes_from(op_group.tolist())
    ends = op_group[graph.edge_index].T.tolist()
    result.add_edges_from((u, v) for u, v in ends if u != v)
    return result


def check(graph: ComputationGraph, coarse: CoarseGraph) -> None:
    """Every invariant of a coarse graph, with plain Python as the judge."""
    assert coarse.graph is graph
    assert coarse.op_group.shape == (graph.num_ops,)
    assert set(coarse.op_group.tolist()) == set(range(coarse.num_groups))
    assert (coarse.edge_index[0] < coarse.edge_index[1]).all()  # topological, so acyclic
    tensors: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    columns = (*graph.edge_index, graph.edge_port, graph.edge_bytes)
    for producer, consumer, port, size in zip(*(c.tolist() for c in columns), strict=True):
        pair = int(coarse.op_group[producer]), int(coarse.op_group[consumer])
        if pair[0] != pair[1]:
            tensors.setdefault(pair, {})[producer, port] = size
    assert [tuple(pair) for pair in coarse.edge_index.T.tolist()] == sorted(tensors)
    sizes = [sum(tensors[pair].values()) for pair in sorted(tensors)]
    np.testing.assert_allclose(coarse.edge_bytes, sizes)
    assert coarse.edge_tensors.tolist() == [len(tensors[pair]) for pair in sorted(tensors)]
    for group, ops in enumerate(partition(coarse)):
        assert (coarse.supported[group] == graph.supported[ops].all(axis=0)).all()
        assert len(ops) == 1 or coarse.supported[group].any()
    dtypes = {array.dtype for array in (coarse.op_group, coarse.edge_index, coarse.edge_tensors)}
    assert dtypes == {np.dtype(np.int32)}


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


def test_none_leaves_all_but_constants_alone():
    graph = make_graph([(0, 2), (1, 2), (2, 3)], types=["Parameter"], constant=[1])
    assert partition(coarsen(graph, "none")) == [[0], [1, 2], [3]]


def test_constants_follow_chains_to_the_first_consumer():
    # 0 -> 1 -> (4, 5), all on the chain 3 -> 4 -> 5; 2 feeds nothing
    graph = make_graph([(0, 1), (1, 5), (1, 4), (3, 4), (4, 5)], constant=[0, 1, 2])
    assert partition(coarsen(graph, "none")) == [[2], [3], [0, 1, 4], [5]]


def test_constant_prefers_a_consumer_over_a_dead_end():
    graph = make_graph([(0, 1), (0, 3), (2, 3)], constant=[0, 1])
    assert partition(coarsen(graph, "none")) == [[2], [0, 3], [1]]


def test_constant_of_another_device_stays_alone():
    graph = make_graph([(0, 1)], constant=[0], supported=[(1, 0), (0, 1)])
    assert partition(coarsen(graph, "none")) == [[0], [1]]


def test_colocation_joins_only_consumer_with_only_producer():
    # 0 -> 1 -> (2, 3) -> 4 -> 5, where 4 also reads the constant 6 (numbered first here as 0)
    edges = [(1, 2), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6), (0, 5)]
    graph = make_graph(edges, constant=[0])
    assert partition(coarsen(graph, "colocation")) == [[1, 2], [3], [4], [0, 5, 6]]


def test_colocation_counts_two_inputs_from_one_producer_once():
    graph = make_graph([(0, 1, 0), (0, 1, 1), (1, 2)])
    assert partition(coarsen(graph, "colocation")) == [[0, 1, 2]]


def test_parameter_and_result_join_their_neighbours():
    edges = [(0, 1), (0, 3), (1, 2), (2, 3), (3, 4), (1, 5)]
    types = ["Parameter", "Relu", "Relu", "Relu", "Result", "Result"]
    graph = make_graph(edges, types=types, supported=[(1, 1)] * 6)
    assert partition(coarsen(graph, "fusion")) == [[0, 1, 5], [2], [3, 4]]
    assert partition(coarsen(graph, "none")) == [[0], [1], [2], [3], [4], [5]]


def test_parameter_that_is_also_an_output_joins_its_consumer():
    graph = make_graph([(0, 1), (0, 2)], types=["Parameter", "Result", "Relu"])
    assert partition(coarsen(graph, "fusion")) == [[0, 1, 2]]


def test_of_two_sets_in_a_cycle_one_stays_whole():
    graph = make_graph([(0, 3), (1, 2)], fusion_sets=[(0, 2), (1, 3)])
    assert partition(coarsen(graph, "fusion")) == [[1], [0, 2], [3]]


def test_an_op_that_must_leave_its_set_does_not_part_the_others():
    graph = make_graph(
        [(0, 1), (0, 2)], fusion_sets=[(0, 1, 2)], supported=[(1, 0), (0, 1), (1, 0)]
    )
    assert partition(coarsen(graph, "fusion")) == [[0, 2], [1]]


def test_heaviest_edge_merges_first():
    graph = make_graph([(0, 1), (1, 2), (2, 3)], tensor_bytes=[1, 9, 1, 1])
    assert partition(coarsen(graph, "none", max_groups=3)) == [[0], [1, 2], [3]]


def test_heaviest_edge_stays_where_it_would_make_a_cycle():
    graph = make_graph([(0, 1), (1, 2), (0, 2, 1)], tensor_bytes=[9, 1, 1])
    assert partition(coarsen(graph, "none", max_groups=2)) == [[0, 1], [2]]


def test_two_heavy_edges_that_cross_do_not_merge_at_once():
    graph = make_graph([(0, 2), (0, 3), (1, 2), (1, 3)], tensor_bytes=[9, 5, 1, 1])
    assert heavy_pairs(graph, np.arange(4), 4) == [(0, 2)]  # with (1, 3) it would be a cycle
    assert partition(coarsen(graph, "none", max_groups=2)) == [[1], [0, 2, 3]]


def test_groups_without_edges_merge_by_flops():
    graph = make_graph([], 4, flops=[5, 5, 1, 1])
    assert partition(coarsen(graph, "none", max_groups=3)) == [[0], [1], [2, 3]]
    assert partition(coarsen(graph, "none", max_groups=2)) == [[0], [1, 2, 3]]


def test_neighbours_are_found_by_device():
    graph = make_graph([], 6, supported=[(1, 0), (0, 1)] * 3)
    assert partition(coarsen(graph, "none", max_groups=2)) == [[0, 2, 4], [1, 3, 5]]


def test_out_of_reach_says_what_to_do():
    graph = make_graph([(0, 1), (1, 2)], supported=[(1, 0), (0, 1), (1, 0)])
    with pytest.raises(DevicePlacementError, match=r"max_groups=2 .* leaves 3 .* Use max_groups=3"):
        coarsen(graph, "none", max_groups=2)


@pytest.mark.parametrize("max_groups", [0, -3])
def test_max_groups_below_one_is_refused(max_groups: int):
    with pytest.raises(DevicePlacementError, match="1 or more"):
        coarsen(make_graph([(0, 1)]), max_groups=max_groups)


def test_unknown_method_is_refused():
    with pytest.raises(DevicePlacementError, match="Did you mean 'fusion'"):
        coarsen(make_graph([(0, 1)]), "fussion")


@pytest.mark.parametrize("method", sorted(COARSENING_METHODS))
@pytest.mark.parametrize("num_ops", [0, 1])
def test_tiny_graphs(method: str, num_ops: int):
    graph = make_graph([], num_ops)
    coarse = coarsen(graph, method, max_groups=1)
    check(graph, coarse)
    assert coarse.num_groups == num_ops


@pytest.mark.parametrize("method", ["none", "fusion"])
@pytest.mark.parametrize("shape", ["chain", "layers", "isolated", "hub"])
def test_fifty_thousand_ops(shape: str, method: str):
    num_ops = 50_000
    graph = {
        "chain": lambda: make_graph([(op, op + 1) for op in range(num_ops - 1)]),
        "layers": lambda: layered(num_ops, width=500),
        "isolated": lambda: make_graph([], num_ops),
        "hub": lambda: make_graph([(0, op) for op in range(1, num_ops)]),
    }[shape]()
    coarse = coarsen(graph, method, max_groups=64)
    check(graph, coarse)
    assert coarse.num_groups == 64
    assert np.bincount(coarse.op_group).max() < num_ops / 10  # no group swallows the rest


@settings(max_examples=20)
@given(graphs(max_ops=60, any_support=False), methods, st.integers(1, 64))
def test_larger_graphs(graph: ComputationGraph, method: str, max_groups: int):
    coarse = coarsen(graph, method, max_groups)
    check(graph, coarse)
    assert coarse.num_groups <= max_groups


def test_same_result_in_every_process():
    script = (
        "import sys, numpy as np; from graphs import layered;"
        "from device_placement.envs.coarsening import coarsen;"
        "from device_placement.envs.features import group_features;"
        "coarse = coarsen(layered(600, 20), 'fusion', 40);"
        "sys.stdout.write(coarse.op_group.tobytes().hex() + group_features(coarse).tobytes().hex())"
    )
    outputs = set()
    for seed in ("0", "1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        run = [sys.executable, "-c", script]
        outputs.add(subprocess.run(run, env=env, check=True, capture_output=True).stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000
