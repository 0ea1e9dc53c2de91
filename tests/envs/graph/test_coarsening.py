import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import strategies as st

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import COARSENING_METHODS, coarsen
from device_placement.envs.graph.partition import heavy_pairs
from graphs import check, make_graph, partition
from places import HELPERS

methods = st.sampled_from(sorted(COARSENING_METHODS))


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


def test_same_result_in_every_process():
    script = (
        "import sys, numpy as np; from graphs import check, partition, layered;"
        "from device_placement.envs.graph.coarsening import coarsen;"
        "from device_placement.envs.graph.features import group_features;"
        "coarse = coarsen(layered(600, 20), 'fusion', 40);"
        "sys.stdout.write(coarse.op_group.tobytes().hex() + group_features(coarse).tobytes().hex())"
    )
    outputs = set()
    for seed in ("0", "1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(HELPERS)}
        run = [sys.executable, "-c", script]
        outputs.add(subprocess.run(run, env=env, check=True, capture_output=True).stdout)
    assert len(outputs) == 1
    assert len(outputs.pop()) > 1000
