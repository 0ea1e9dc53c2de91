"""States and dynamic shapes keep their ops in one group."""

from __future__ import annotations

import dataclasses

import networkx as nx
import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import COARSENING_METHODS, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.graph.flops import op_flops
from device_placement.envs.graph.shapes import is_bounded, largest_shape
from device_placement.envs.graph.tied_ops import TiedOps, tie
from device_placement.envs.models.loading import load_model
from graphs import check, graphs, make_graph, partition, quotient_of
from stateful_models import decoder, detector, nonzero_in_the_middle, recurrent

methods = st.sampled_from(sorted(COARSENING_METHODS))


@st.composite
def tied_graphs(draw: st.DrawFn) -> ComputationGraph:
    """Random graphs with states and dynamic edges drawn at random."""
    graph = draw(graphs(any_support=False))
    edges = graph.edge_index.astype(np.int64)
    computed = edges[:, ~graph.is_constant[edges[0]]]
    able = np.flatnonzero(~graph.is_constant).tolist()
    if len(able) < 2:
        return graph
    pairs = draw(st.lists(st.tuples(st.sampled_from(able), st.sampled_from(able)), max_size=3))
    states = {f"s{number}": list(pair) for number, pair in enumerate(pairs)}
    count = computed.shape[1]
    chosen = draw(st.lists(st.integers(0, count - 1), max_size=2)) if count else []
    return dataclasses.replace(
        graph, tied=tie(graph.num_ops, computed, states, computed[:, chosen])
    )


@given(tied_graphs())
def test_tied_sets_are_disjoint_and_make_no_cycle(graph: ComputationGraph) -> None:
    members = [op for one in graph.tied for op in one.ops]
    assert len(members) == len(set(members))
    label = np.arange(graph.num_ops)
    for one in graph.tied:
        label[list(one.ops)] = one.ops[0]
    assert nx.is_directed_acyclic_graph(quotient_of(graph, label))


@given(tied_graphs())
def test_tied_sets_are_connected_where_the_graph_is(graph: ComputationGraph) -> None:
    whole = nx.Graph()
    whole.add_nodes_from(range(graph.num_ops))
    edges = graph.edge_index[:, ~graph.is_constant[graph.edge_index[0]]]
    whole.add_edges_from(edges.T.tolist())
    for one in graph.tied:
        reachable = set.union(*(nx.node_connected_component(whole, op) for op in one.ops))
        if nx.is_connected(whole.subgraph(reachable)):
            assert nx.is_connected(whole.subgraph(one.ops))


@given(tied_graphs(), methods, st.one_of(st.none(), st.integers(1, 6)))
def test_every_coarsening_keeps_tied_ops_together(
    graph: ComputationGraph, method: str, max_groups: int | None
) -> None:
    coarse = coarsen(graph, method, max_groups)
    check(graph, coarse)
    for one in graph.tied:
        assert len(set(coarse.op_group[list(one.ops)].tolist())) == 1


def test_sets_that_a_path_leads_through_are_united() -> None:
    # 0 -> 1 -> 2 -> 3 and 0 -> 4 -> 3; a: 0, 2; b: 1, 3: each is on a path of the other
    edges = np.array([[0, 1, 2, 0, 4], [1, 2, 3, 4, 3]])
    (one,) = tie(5, edges, {"a": [0, 2], "b": [1, 3]}, edges[:, :0])
    assert one == TiedOps((0, 1, 2, 3, 4), ("a", "b"), dynamic=False)
    assert one.title == "state 'a', 'b'"


def test_a_state_that_is_written_elsewhere_is_connected_by_a_shortest_path() -> None:
    # 0 -> 1 -> 2 -> 5, 0 -> 3 -> 4: 1 and 4 are read and written
    edges = np.array([[0, 1, 2, 0, 3], [1, 2, 5, 3, 4]])
    (one,) = tie(6, edges, {"a": [1, 4]}, edges[:, :0])
    assert one.ops == (0, 1, 3, 4)


@pytest.mark.parametrize("method", COARSENING_METHODS)
def test_an_error_names_the_state_that_no_device_runs(method: str) -> None:
    tied = (TiedOps((0, 1), ("cache",), dynamic=False),)
    graph = make_graph([(0, 1)], types=["ReadValue", "Assign"], supported=[[1, 0], [0, 1]])
    message = r"together \(state 'cache'\): CPU.0 lacks Assign; CPU.1 lacks ReadValue\. Add a dev"
    with pytest.raises(DevicePlacementError, match=message):
        coarsen(dataclasses.replace(graph, tied=tied), method)


def test_each_layer_has_a_state_of_its_own() -> None:
    graph = read_graph(load_model(recurrent()), "CPU")
    assert {one.variables for one in graph.tied} == {("state0",), ("state1",)}
    for one in graph.tied:
        kinds = {graph.op_types[op] for op in one.ops}
        assert kinds == {"ReadValue", "MatMul", "Add", "Tanh", "Assign"}
        assert not one.dynamic
        assert not graph.is_constant[list(one.ops)].any()
    assert len(coarsen(graph, "none").edge_bytes) > 0


def test_a_cache_that_grows_is_tied_to_the_attention_that_reads_it() -> None:
    graph = read_graph(load_model(decoder()), "CPU")
    assert {one.variables for one in graph.tied} == {("key0", "value0"), ("key1", "value1")}
    for one in graph.tied:
        assert one.dynamic
        assert {"Concat", "Softmax", "MatMul"} <= {graph.op_types[op] for op in one.ops}


def test_the_tail_of_a_detector_is_one_group_and_the_rest_stays_free() -> None:
    graph = read_graph(load_model(detector()), "CPU")
    (one,) = graph.tied
    assert one.title == "dynamic shapes"
    kinds = sorted(graph.op_types[op] for op in one.ops)
    assert kinds == ["Gather", "Gather", "NonMaxSuppression", "Result", "Result"]
    sizes = [len(members) for members in partition(coarsen(graph, "none"))]
    assert len(sizes) > 10


def test_what_computes_with_a_dynamic_shape_is_tied_to_what_uses_it() -> None:
    x = ops.parameter([4], np.float32, name="x")
    found = ops.non_zero(x, "i64")
    half = ops.divide(ops.shape_of(found), ops.constant(np.array([1, 2])))
    out = ops.relu(ops.tile(ops.tanh(x), ops.maximum(half, ops.constant(np.array([1, 1])))))
    graph = read_graph(load_model(ov.Model([ops.result(out)], [x], "sizes")), "CPU")
    (one,) = graph.tied
    kinds = {graph.op_types[op] for op in one.ops}
    assert {"NonZero", "ShapeOf", "Divide", "Maximum", "Tile", "Relu"} <= kinds
    assert "Tanh" not in kinds


def test_sizes_that_depend_on_the_data_count_with_their_bounds() -> None:
    graph = read_graph(load_model(nonzero_in_the_middle()), "CPU")
    at = graph.op_types.index("NonZero")
    assert graph.output_shapes[at] == (2, 32)
    assert graph.bytes_out[at] == 2 * 32 * 8
    assert graph.flops[graph.op_types.index("Tanh")] == 7 * 32


def test_sizes_without_a_bound_count_as_1() -> None:
    x = ops.parameter(ov.PartialShape([-1, 3]), np.float32)
    anything = ops.parameter(ov.PartialShape.dynamic(), np.float32)
    product = ops.matmul(x, ops.constant(np.zeros((3, 5), np.float32)), False, False)
    assert largest_shape(product.output(0)) == (1, 5)
    assert op_flops(product) == 2 * 3 * 5
    assert not is_bounded(product.output(0))
    assert largest_shape(anything.output(0)) == ()
    assert op_flops(ops.matmul(anything, anything, False, False)) == 1
    assert not is_bounded(anything.output(0))
