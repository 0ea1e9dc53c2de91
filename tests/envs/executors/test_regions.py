"""Regions of placed graphs: a partition that delays nothing, with plain Python as the judge."""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs  # noqa: F401  # no deadlines
from device_placement.envs import PlacementError, load_model
from device_placement.envs.executors.regions import find_regions, plan_regions

Edges = list[tuple[int, int, int]]  # producer, consumer, number of the producer's tensor


@st.composite
def placed(draw: st.DrawFn) -> tuple[Edges, list[int]]:
    """A random DAG in a random numbering, whose tensors have several readers, and devices."""
    num_groups = draw(st.integers(1, 14))
    pair = st.tuples(st.integers(0, num_groups - 1), st.integers(0, num_groups - 1))
    drawn = draw(st.lists(st.tuples(pair, st.integers(0, 1)), max_size=3 * num_groups))
    number = draw(st.permutations(range(num_groups)))
    edges = [(number[min(p)], number[max(p)], port) for p, port in drawn if p[0] != p[1]]
    devices = draw(st.lists(st.integers(0, 2), min_size=num_groups, max_size=num_groups))
    return edges, devices


def regions_of(edges: Edges, devices: Sequence[int]) -> list[int]:
    columns = np.array(edges, np.int64).reshape(-1, 3)
    tensor = 2 * columns[:, 0] + columns[:, 2]
    found = find_regions(columns[:, 0], columns[:, 1], tensor, np.array(devices, np.int64))
    return [int(region) for region in found]


def crossing_sets(
    edges: Edges, devices: Sequence[int]
) -> list[tuple[set[tuple[int, int]], set[tuple[int, int]]]]:
    """The crossing tensors before and after each group, by walking all paths."""
    graph = nx.DiGraph([(producer, consumer) for producer, consumer, _ in edges])
    graph.add_nodes_from(range(len(devices)))
    sets = []
    for group in range(len(devices)):
        above = nx.ancestors(graph, group) | {group}
        below = nx.descendants(graph, group) | {group}
        crossing = [edge for edge in edges if devices[edge[0]] != devices[edge[1]]]
        before = {(p, port) for p, consumer, port in crossing if consumer in above}
        after = {(p, port) for p, _, port in crossing if p in below}
        sets.append((before, after))
    return sets


def members_of(region: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(max(region) + 1)]
    for group, one in enumerate(region):
        found[one].append(group)
    return found


@given(placed())
def test_regions_are_a_partition_into_connected_convex_pieces_of_one_device(
    case: tuple[Edges, list[int]],
) -> None:
    edges, devices = case
    region = regions_of(edges, devices)
    assert set(region) == set(range(max(region) + 1))
    graph = nx.DiGraph([(producer, consumer) for producer, consumer, _ in edges])
    graph.add_nodes_from(range(len(devices)))
    for members in members_of(region):
        assert len({devices[group] for group in members}) == 1
        assert nx.is_weakly_connected(graph.subgraph(members))
        above = {one for group in members for one in nx.ancestors(graph, group)}
        below = {one for group in members for one in nx.descendants(graph, group)}
        assert above & below <= set(members)  # no path leaves and comes back
    between = [(region[p], region[c]) for p, c, _ in edges if region[p] != region[c]]
    assert all(producer < consumer for producer, consumer in between)  # so there are no cycles


@given(placed())
def test_no_group_waits_for_a_tensor_that_its_region_alone_needs(
    case: tuple[Edges, list[int]],
) -> None:
    edges, devices = case
    region, sets = regions_of(edges, devices), crossing_sets(edges, devices)
    members = members_of(region)
    for groups in members:
        assert all(sets[group] == sets[groups[0]] for group in groups)
        # Every group needs what comes in, and what goes out needs every group.
        before, after = sets[groups[0]]
        own = set(groups)
        for producer, consumer, port in edges:
            if devices[producer] != devices[consumer]:
                assert consumer not in own or (producer, port) in before
                assert producer not in own or (producer, port) in after


@given(placed())
def test_no_two_neighbours_could_be_one_region(case: tuple[Edges, list[int]]) -> None:
    edges, devices = case
    region, sets = regions_of(edges, devices), crossing_sets(edges, devices)
    for producer, consumer, _ in edges:
        alike = devices[producer] == devices[consumer] and sets[producer] == sets[consumer]
        assert (region[producer] == region[consumer]) >= alike


@given(placed())
def test_the_smallest_group_that_can_be_next_comes_first(case: tuple[Edges, list[int]]) -> None:
    edges, devices = case
    region = regions_of(edges, devices)
    between = {(region[p], region[c]) for p, c, _ in edges if region[p] != region[c]}
    smallest = [min(groups) for groups in members_of(region)]
    left = set(range(len(smallest)))
    for one in range(len(smallest)):
        ready = [r for r in left if not any(c == r and p in left for p, c in between)]
        assert one == min(ready, key=lambda r: smallest[r])
        left.remove(one)


@pytest.mark.parametrize(
    ("edges", "devices", "region"),
    [
        ([], [0], [0]),
        ([], [0, 1, 0], [0, 1, 2]),  # unconnected groups
        ([(0, 1, 0), (1, 2, 0)], [0, 0, 0], [0, 0, 0]),  # a chain
        ([(0, 1, 0), (1, 2, 0)], [0, 1, 0], [0, 1, 2]),
        ([(0, 1, 0), (1, 2, 0), (2, 3, 0)], [0, 0, 1, 1], [0, 0, 1, 1]),
        ([(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 0)], [0, 0, 0, 0], [0, 0, 0, 0]),  # a diamond
        ([(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 0)], [0, 0, 1, 0], [0, 1, 2, 3]),
        ([(0, 1, 0), (0, 2, 0), (1, 3, 0), (2, 3, 0)], [0, 1, 1, 0], [0, 1, 2, 3]),
        # Two towers on a device each, joined at the end.
        ([(0, 1, 0), (2, 3, 0), (1, 4, 0), (3, 4, 0)], [0, 0, 1, 1, 0], [0, 0, 1, 1, 2]),
        # Two towers on one device: neither waits for the other.
        ([(0, 1, 0), (2, 3, 0)], [0, 0, 0, 0], [0, 0, 1, 1]),
        # A branch of two groups waits for the other device, one beside it does not.
        ([(0, 1, 0), (0, 2, 0), (2, 3, 0)], [0, 0, 1, 0], [0, 1, 2, 3]),
    ],
)
def test_known_regions(edges: Edges, devices: list[int], region: list[int]) -> None:
    assert regions_of(edges, devices) == region


def inception(port: int) -> Edges:
    """A stem whose tensor three branches of two groups read, and a group that joins them.

    With 0 it is one tensor; with 1, a different one for the last branch.
    """
    branches = [(0, 1, 0), (1, 2, 0), (0, 3, 0), (3, 4, 0), (0, 5, port), (5, 6, 0)]
    return [*branches, (2, 7, 0), (4, 7, 0), (6, 7, 0)]


def test_three_readers_of_one_tensor_are_apart_only_where_they_wait_for_different_things() -> None:
    # Each branch makes a tensor that the first device can take before the others.
    assert regions_of(inception(0), [0, 1, 1, 1, 1, 1, 1, 0]) == [0, 1, 1, 2, 2, 3, 3, 4]
    # With the group that joins them, all wait for the same tensor, and nothing leaves.
    assert regions_of(inception(0), [0, 1, 1, 1, 1, 1, 1, 1]) == [0, 1, 1, 1, 1, 1, 1, 1]
    # The third branch can begin before the tensor of the other two has come, and they before its.
    assert regions_of(inception(1), [0, 1, 1, 1, 1, 1, 1, 1]) == [0, 1, 1, 2, 2, 3, 3, 4]


def test_an_edge_within_a_group_and_the_order_of_edges_change_nothing() -> None:
    edges, devices = inception(0), [0, 1, 1, 0, 0, 1, 1, 0]
    expected = regions_of(edges, devices)
    assert regions_of([*edges[::-1], (3, 3, 1)], devices) == expected
    assert regions_of([*edges, *edges], devices) == expected


def test_a_cycle_of_groups_is_refused() -> None:
    with pytest.raises(PlacementError, match="cycle between them, so none of them can run first"):
        regions_of([(0, 1, 0), (1, 0, 0)], [0, 0])


def names_of(model: ov.Model) -> list[str]:
    return [op.get_friendly_name() for op in model.get_ordered_ops()]


def test_a_models_regions_hold_every_op_that_works_once() -> None:
    model = load_model("diamond")
    names = names_of(model)
    devices = {name: ("CPU", "CPU_B")[number // 3 % 2] for number, name in enumerate(names)}
    regions = plan_regions(model, devices)
    placed = [name for region in regions for name in region.op_names]
    idle = ("Parameter", "Result", "Constant")
    assert sorted(placed) == sorted(name for name in names if name.split("_")[1] not in idle)
    assert all(devices[name] == region.device for region in regions for name in region.op_names)
    single = plan_regions(model, dict.fromkeys(names, "CPU"))
    assert [region.device for region in single] == ["CPU"]


def test_what_is_computed_from_constants_alone_is_in_no_region() -> None:
    x = ops.parameter([2], np.float32, name="x")
    halves = ops.convert(ops.constant(np.ones(2, np.float16)), "f32")
    model = ov.Model([ops.relu(ops.add(x, halves))], [x], "folded")
    (region,) = plan_regions(model, dict.fromkeys(names_of(model), "CPU"))
    assert [name.split("_")[0] for name in region.op_names] == ["Add", "Relu"]


def test_groups_stay_whole_and_are_on_one_device() -> None:
    x = ops.parameter([2], np.float32, name="x")
    one, other = ops.relu(x), ops.tanh(x)
    then = ops.exp(one)
    end = ops.add(then, other)
    for name, op in (("one", one), ("other", other), ("then", then), ("end", end)):
        op.set_friendly_name(name)
    model = ov.Model([end], [x], "groups")
    names = names_of(model)
    devices = dict.fromkeys(names, "CPU") | {"other": "CPU_B"}
    apart = plan_regions(model, devices)
    assert sorted(region.op_names for region in apart) == [("end",), ("one", "then"), ("other",)]
    groups = {name: number for number, name in enumerate(names)}
    assert plan_regions(model, devices, groups) == apart
    together = groups | dict.fromkeys(("one", "then", "end"), groups["one"])
    assert [region.op_names[0] for region in plan_regions(model, devices, together)] == [
        "other",
        "one",
    ]
    with pytest.raises(PlacementError, match="on several devices; give it one"):
        plan_regions(model, devices, groups | {"other": groups["one"]})
    with pytest.raises(PlacementError, match="cycle between them"):
        plan_regions(model, devices, groups | {"end": groups["one"]})
