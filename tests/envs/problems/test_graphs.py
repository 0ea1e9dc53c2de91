from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from device_placement.envs.problems.draws import Draws
from device_placement.envs.problems.graphs import MAX_GROUPS, MIN_GROUPS, OP_KINDS, draw_graph
from device_placement.envs.problems.wiring import FAMILIES


@given(st.sampled_from([*FAMILIES]), st.integers(4, 150), st.integers(0, 2**32 - 1))
def test_ops_suit_their_inputs(family: str, num_groups: int, seed: int) -> None:
    graph = draw_graph("some", "some", family, num_groups, Draws(seed))
    inputs = np.bincount(graph.edge_index[1], minlength=num_groups)
    for op, (kind, number) in enumerate(zip(graph.op_types, inputs.tolist(), strict=True)):
        least, most = OP_KINDS[kind].inputs
        # The first of several repeated blocks has no entry, so its first op has one input less.
        assert least - (family == "repeated") <= number <= most
        assert (graph.weight_bytes[op] > 0) <= OP_KINDS[kind].has_weights
        low, high = OP_KINDS[kind].intensity
        moved = graph.bytes_in[op] + graph.bytes_out[op]
        assert low * moved - 1 <= graph.flops[op] <= high * 8 * moved
    read = np.bincount(graph.edge_index[1], graph.bytes_out[graph.edge_index[0]], num_groups)
    assert graph.bytes_in.tolist() == read.tolist()
    assert graph.edge_bytes.tolist() == graph.bytes_out[graph.edge_index[0]].tolist()
    assert graph.weight_bytes[0] > 0
    assert len({*graph.op_names}) == num_groups


def test_sizes_have_heavy_tails() -> None:
    graphs = [draw_graph("some", "some", "layered", 200, Draws(seed)) for seed in range(20)]
    for sizes in (
        [graph.bytes_out for graph in graphs],
        [graph.weight_bytes[graph.weight_bytes > 0] for graph in graphs],
        [graph.flops[graph.flops > 0] for graph in graphs],
    ):
        assert np.median([one.max() / np.median(one) for one in sizes]) > 15


def test_repeated_blocks_have_equal_ops() -> None:
    graph = draw_graph("some", "some", "repeated", 100, Draws(1))
    assert len({*zip(graph.op_types, graph.output_shapes, strict=True)}) < 50


def test_the_smallest_and_a_large_graph_can_be_drawn() -> None:
    for family in FAMILIES:
        assert draw_graph("some", "some", family, MIN_GROUPS, Draws(3)).num_ops == MIN_GROUPS
    assert draw_graph("some", "some", "branching", MAX_GROUPS, Draws(3)).num_ops == MAX_GROUPS
