from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_placement.envs.problems.draws import Draws
from device_placement.envs.problems.wiring import (
    ENTRY,
    FAMILIES,
    draw_block,
    draw_wiring,
    op_levels,
)


@given(st.sampled_from([*FAMILIES]), st.integers(4, 200), st.integers(0, 2**32 - 1))
def test_every_family_has_the_size_and_a_topological_numbering(
    family: str, num_ops: int, seed: int
) -> None:
    wiring = draw_wiring(family, num_ops, Draws(seed))
    assert len(wiring.kind) == num_ops
    assert all(0 <= producer < consumer < num_ops for producer, consumer in wiring.edges)
    graph: nx.DiGraph[int] = nx.DiGraph(list(wiring.edges))
    if family != "layered":  # whose last layer is unread, and whose first reads nothing
        assert len(graph) == num_ops
        assert nx.is_weakly_connected(graph)
        assert [op for op in graph if graph.out_degree(op) == 0] == [num_ops - 1]


@given(st.integers(4, 120), st.integers(0, 2**32 - 1))
def test_ops_of_layers_are_read_unless_they_are_in_the_last(num_ops: int, seed: int) -> None:
    wiring = FAMILIES["layered"](num_ops, Draws(seed))
    unread = {*range(num_ops)} - {producer for producer, _ in wiring.edges}
    assert unread == {*range(min(unread), num_ops)}


@given(st.integers(20, 120), st.integers(0, 2**32 - 1))
def test_repeated_blocks_are_alike(num_ops: int, seed: int) -> None:
    wiring = FAMILIES["repeated"](num_ops, Draws(seed))
    kinds = np.array(wiring.kind)
    assert np.bincount(kinds).max() >= 2
    inputs = np.bincount([consumer for _, consumer in wiring.edges], minlength=num_ops)
    for kind in range(1, int(kinds[-1])):  # the first op of a block may have no entry
        assert len({*inputs[kinds == kind].tolist()}) <= 1


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_a_block_has_one_way_in_and_one_out(size: int, seed: int) -> None:
    block = draw_block(size, Draws(seed))
    assert len(block) == size
    assert [op for op, producers in enumerate(block) if ENTRY in producers] == [0]
    read = {producer for producers in block for producer in producers}
    assert {*range(size)} - read == {size - 1}


def test_levels_are_longest_paths() -> None:
    assert op_levels(5, [(0, 1), (1, 2), (0, 2), (2, 4)]) == [0, 1, 2, 0, 3]


@pytest.mark.parametrize("family", FAMILIES)
def test_families_are_of_several_widths(family: str) -> None:
    widths = set()
    for seed in range(40):
        wiring = draw_wiring(family, 60, Draws(seed))
        widths.add(np.bincount(op_levels(60, wiring.edges)).max())
    assert min(widths) <= 3
    assert max(widths) >= (3 if family == "chained" else 5)
