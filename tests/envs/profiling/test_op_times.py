"""What ops take by OpenVINO's profiler, however they were fused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.envs import make_evaluator
from device_placement.envs.profiling import op_times
from device_placement.envs.profiling.op_times import (
    RESOLUTION_S,
    ExecutedNode,
    estimate_unseen,
    measure_op_times,
    share_out,
)
from graphs import make_graph
from problems import QUICK, TWO_CPUS, chain, measured


def node(name: str, ops: str, readers: str, time_s: float) -> ExecutedNode:
    return ExecutedNode(name, tuple(ops.split()), tuple(readers.split()), time_s)


def test_the_time_of_a_node_is_shared_out_among_its_ops_by_flops() -> None:
    # 0 feeds 2 (weights: 1), 2 feeds 3, 3 feeds 4 and 5; both end in 6.
    graph = make_graph(
        [(0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 6), (5, 6)],
        constant=[1],
        flops=[0.0, 5.0, 30.0, 10.0, 0.0, 0.0, 7.0],
    )
    nodes = [
        node("in", "op0", "reorder", 0.5),
        node("weights", "op1", "fused", 0.25),  # a constant: what it takes is its reader's
        node("reorder", "", "fused", 1.0),
        node("fused", "op3 elsewhere", "split", 4.0),  # op2 is not named, and went into op3
        node("split", "", "even last", 2.0),  # inserted, read by two
        node("even", "op4 op5", "last", 6.0),  # none has FLOPs
        node("last", "op6", "", 8.0),
    ]
    shared = share_out(graph, nodes)
    fused = 4.0 + 1.0 + 0.25
    expected = [0.5, 0.0, 0.75 * fused, 0.25 * fused, 3.5, 3.5, 9.0]
    assert shared.tolist() == pytest.approx(expected)
    assert shared.sum() == pytest.approx(sum(one.time_s for one in nodes))


def test_an_op_in_two_nodes_has_the_time_of_both() -> None:
    graph = make_graph([(0, 1)])
    nodes = [node("a", "op0", "b", 1.0), node("b", "op0", "c", 2.0), node("c", "op1", "", 4.0)]
    assert share_out(graph, nodes).tolist() == [3.0, 4.0]


def test_ops_that_a_device_does_not_support_have_no_time_there(tmp_path: Path) -> None:
    evaluator: Any = make_evaluator(chain(tmp_path), TWO_CPUS, **QUICK)
    graph = evaluator.coarse.graph
    relus = np.array(graph.op_types) == "Relu"
    supported = graph.supported.copy()
    supported[relus, 1] = False
    graph = dataclasses.replace(graph, supported=supported)
    found = measure_op_times(evaluator.core, evaluator.model, graph, evaluator.devices, 1)
    np.testing.assert_array_equal(np.isnan(found), relus)
    assert np.nansum(found) > 0


def test_what_the_profiler_reads_as_nothing_is_estimated() -> None:
    graph = make_graph(
        [(0, 2), (1, 2), (2, 3), (3, 4)], constant=[1], flops=[0.0, 0.0, 9e9, 3e9, 3e3]
    )
    nodes = [
        node("weights", "op1", "large", 0.0),  # a constant
        node("large", "op2", "middle", 6.0),
        node("middle", "op3", "small", 0.0),  # by its FLOPs 2 s, which the profiler would have seen
        node("small", "op4", "", 0.0),
    ]
    weights, large, middle, small = (one.time_s for one in estimate_unseen(graph, nodes))
    assert (weights, large, middle) == (0.0, 6.0, RESOLUTION_S)
    assert 0.0 < small <= RESOLUTION_S
    unseen = [dataclasses.replace(one, time_s=0.0) for one in nodes]
    weights, large, middle, small = (one.time_s for one in estimate_unseen(graph, unseen))
    assert weights == 0.0 < small < middle < large
    assert large == pytest.approx(3 * middle, rel=0.01)


def test_a_device_without_a_profiler_has_op_times(monkeypatch: pytest.MonkeyPatch) -> None:
    def blind(*arguments: Any) -> list[ExecutedNode]:
        return [dataclasses.replace(one, time_s=0.0) for one in run(*arguments)]

    run = op_times._run
    monkeypatch.setattr(op_times, "_run", blind)
    evaluator = measured("diamond")
    graph = evaluator.coarse.graph
    found = measure_op_times(evaluator.core, evaluator.model, graph, evaluator.devices, 0)
    products = np.array(graph.op_types) == "MatMul"
    assert (found[products] > 0).all()
    assert not found[graph.is_constant].any()
