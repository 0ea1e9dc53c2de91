import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.features import (
    DEFAULT_BLOCKS,
    FEATURE_BLOCKS,
    OP_TYPES,
    feature_names,
    group_features,
    num_features,
)
from graphs import graphs, make_graph

EVERY = tuple(FEATURE_BLOCKS)


def small() -> CoarseGraph:
    """Parameter 0 -> MatMul 2 (weights 1) -> Relu 3 and Custom 4 -> Add 5 -> Result 6.

    Groups: 0 = {0}, 1 = {1, 2}, 2 = {3}, 3 = {4}, 4 = {5}, 5 = {6}.
    """
    graph = make_graph(
        [(0, 2), (1, 2), (2, 3), (2, 4), (3, 5), (4, 5), (5, 6)],
        types=["Parameter", "Constant", "MatMul", "Relu", "Custom", "Add", "Result"],
        constant=[1],
        flops=[0, 0, 1000, 10, 10, 10, 0],
        tensor_bytes=[8, 99, 16, 32, 64, 7, 0],
        shapes=[(1, 2), (2, 4), (1, 4), (2, 3, 5), (4,), (9, 8, 7, 6, 5, 4, 3), (9,)],
        supported=[(1, 1, 0)] * 3 + [(0, 1, 0)] + [(1, 1, 1)] * 3,
    )
    return coarsen(graph, "none")


def log(values: list[float], scale: float) -> list[list[float]]:
    return [[np.log(1 + value) / scale] for value in values]


# The numbers below are worked by hand from the picture in `small`.
WORKED = {
    "flops": log([0, 1000, 10, 10, 10, 0], 10),
    "weight_bytes": log([0, 99, 0, 0, 0, 0], 10),
    # the model's input (8) enters at 0, and 0's tensor enters 1; its weights are inside
    "bytes_in": log([8, 8, 16, 16, 32 + 64, 7], 10),
    # the MatMul's tensor goes to two groups but leaves once; the Result hands out 7
    "bytes_out": log([8, 16, 32, 64, 7, 7], 10),
    "position": log([0, 1, 2, 3, 4, 5], 4),
    "in_degree": np.eye(9)[[0, 1, 1, 1, 2, 1]],
    "out_degree": np.eye(9)[[1, 2, 1, 1, 1, 0]],
    "supported_devices": [
        [1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0],
    ],
    "output_shape": np.log1p(
        [
            [0, 0, 0, 0, 1, 2],
            [0, 0, 0, 0, 1, 4],  # the MatMul's, not the weights'
            [0, 0, 0, 2, 3, 5],
            [0, 0, 0, 0, 0, 4],
            [8, 7, 6, 5, 4, 3],  # the last six of seven
            [0, 0, 0, 0, 0, 9],  # a Result alone
        ]
    )
    / 4,
}


@pytest.mark.parametrize("block", sorted(WORKED))
def test_block_as_worked_by_hand(block: str):
    np.testing.assert_allclose(group_features(small(), [block]), WORKED[block], rtol=1e-6)


def test_op_types_are_averaged_without_constants():
    found = group_features(small(), ["op_type"])
    names = [name.removeprefix("op_type[")[:-1] for name in feature_names(["op_type"])]
    kinds = [names[column] for column in found.argmax(axis=1)]
    assert kinds == ["Parameter", "MatMul", "Relu", "other", "Add", "Result"]
    assert (found.sum(axis=1) == 1).all()
    graph = make_graph([(0, 1), (1, 2), (2, 3)], types=["Add", "Relu", "Relu", "Relu"])
    row = group_features(coarsen(graph, "colocation"), ["op_type"])[0]
    assert row[OP_TYPES.index("Add")] == 0.25
    assert row[OP_TYPES.index("Relu")] == 0.75


def test_constants_alone_count_as_constants():
    coarse = coarsen(make_graph([(0, 1)], constant=[0, 1]))
    assert group_features(coarse, ["op_type"])[0, OP_TYPES.index("Constant")] == 1


def test_output_shape_is_the_last_ops():
    graph = make_graph(
        [(0, 1), (1, 2)], types=["Relu", "Relu", "Result"], shapes=[(2,), (3,), (5,)]
    )
    row = group_features(coarsen(graph, "colocation"), ["output_shape"])[0]
    np.testing.assert_allclose(row, [0, 0, 0, 0, 0, np.log(4) / 4], rtol=1e-6)


def test_degrees_of_eight_or_more_share_a_column():
    graph = make_graph([(0, op) for op in range(1, 12)])
    assert group_features(coarsen(graph, "none"), ["out_degree"])[0].tolist() == [0] * 8 + [1]


def test_position_sinusoid():
    found = group_features(small(), ["position_sinusoid"])
    assert found[0].tolist() == [0, 1] * 8
    last = [wave(5 / 10000 ** (i / 16)) for i in range(0, 16, 2) for wave in (np.sin, np.cos)]
    np.testing.assert_allclose(found[5], last, rtol=1e-6)


def test_fractal_dimension_ignores_direction():
    # 1 and 2 sit in the middle: distances to the 3 others are 1, 1, 2 -> N(1) = 3, N(2) = 4
    coarse = coarsen(make_graph([(0, 1), (1, 2), (2, 3)]), "none")
    end = np.polyfit(np.log([1, 2, 3]), np.log([2, 3, 4]), 1)[0]
    middle = np.log(4 / 3) / np.log(2)
    found = group_features(coarse, ["fractal_dimension"])
    np.testing.assert_allclose(found, [[end], [middle], [middle], [end]], rtol=1e-6)


@given(graphs())
def test_shape_type_and_range(graph: ComputationGraph):
    coarse = coarsen(graph)
    found = group_features(coarse, EVERY)
    assert found.dtype == np.float32
    assert found.shape == (coarse.num_groups, num_features(EVERY))
    assert len(set(feature_names(EVERY))) == num_features(EVERY)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 4
    assert (group_features(coarse, EVERY) == found).all()


@given(graphs(any_support=False))
def test_only_supported_devices_depends_on_the_devices(graph: ComputationGraph):
    others = [block for block in EVERY if block != "supported_devices"]
    for count in (1, 3, 11):
        wide = dataclasses.replace(
            graph,
            devices=tuple(f"CPU.{device}" for device in range(count)),
            supported=np.ones((graph.num_ops, count), bool),
        )
        coarse = coarsen(wide)
        same = group_features(coarse, others) == group_features(coarsen(graph), others)
        assert same.all()
        shown = group_features(coarse, ["supported_devices"])
        assert (shown.sum(axis=1) == min(count, 8)).all()


def test_large_numbers_stay_in_range():
    graph = make_graph(
        [(0, 1)], flops=[1e15, 1], tensor_bytes=[1e12, 1], shapes=[(10**9,) * 8, (1,)]
    )
    assert np.abs(group_features(coarsen(graph, "none"), EVERY)).max() < 6
    hub = make_graph([(0, op) for op in range(1, 5000)])
    assert group_features(coarsen(hub, "none"), ["fractal_dimension"]).max() == 10


def test_a_feature_does_not_depend_on_how_many_groups_there_are():
    short = make_graph([(op, op + 1) for op in range(4)])
    long = make_graph([(op, op + 1) for op in range(50)])
    blocks = [block for block in EVERY if block != "fractal_dimension"]
    rows = [group_features(coarsen(graph, "none"), blocks)[:4] for graph in (short, long)]
    assert (rows[0] == rows[1]).all()


def test_blocks_stand_in_the_order_asked_for():
    one, other = (group_features(small(), [block]) for block in ("flops", "output_shape"))
    both = group_features(small(), ["output_shape", "flops"])
    assert (both == np.concatenate([other, one], axis=1)).all()


def test_op_types_are_sorted_and_distinct():
    assert list(OP_TYPES) == sorted(set(OP_TYPES))


def test_default_is_every_block_but_the_second_position():
    assert set(EVERY) - set(DEFAULT_BLOCKS) == {"position_sinusoid"}


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["flop"], "Did you mean 'flops'"),
        ([], "at least one"),
        (["flops", "flops"], "each once"),
        ("flop", "Did you mean 'flops'"),
    ],
)
def test_wrong_blocks_are_refused(blocks: list[str], message: str):
    for function in (num_features, feature_names):
        with pytest.raises(DevicePlacementError, match=message):
            function(blocks)
    with pytest.raises(DevicePlacementError, match=message):
        group_features(small(), blocks)


def test_empty_graph_has_no_rows():
    coarse = coarsen(make_graph([], 0))
    assert group_features(coarse, EVERY).shape == (0, num_features(EVERY))


def test_numba_is_loaded_only_for_the_fractal_dimension():
    script = "import sys, device_placement.envs.graph.features; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
