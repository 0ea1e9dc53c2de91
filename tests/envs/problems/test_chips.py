"""Models on chips with just enough memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from device_placement.envs import DevicePlacementError, load_model, read_graph
from device_placement.envs.problems.chips import chip_bytes, on_chips
from device_placement.envs.problems.generator import draw_problem

GRAPH = read_graph(load_model("resnet50"), "CPU", simulated=True)


@pytest.mark.parametrize(("chips", "room"), [(2, 1.5), (4, 2.0), (8, 4.0)])
def test_chips_hold_a_multiple_of_an_even_share(chips: int, room: float) -> None:
    evaluator = on_chips(GRAPH, chips, room=room, max_groups=24)
    sizes = evaluator.costs.group_bytes
    own = max(room * sizes.sum() / chips, sizes.max())
    assert [device.memory_bytes for device in evaluator.devices] == [math.ceil(own)] * chips
    assert evaluator.costs.memory_bytes.tolist() == [math.ceil(own)] * chips
    assert chip_bytes(evaluator.coarse, chips, room) == math.ceil(own)
    assert evaluator.schedule == "pipelined"
    assert np.ptp(evaluator.costs.compute_s, axis=1).max() == 0  # the chips are alike


def test_generated_graphs_run_on_chips_too() -> None:
    graph = draw_problem(4_000_000_007).workload.coarse.graph
    evaluator = on_chips(graph, 4, constraints="acyclic,no_skip")
    assert evaluator.costs.constraints == ("acyclic", "no_skip")
    assert evaluator.coarse.num_groups == graph.num_ops
    assert (evaluator.costs.compute_s > 0).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"chips": 1}, "Got 1 chips"),
        ({"chips": 37}, "has 36"),
        ({"room": 0.5}, "room=0.5"),
        ({"room": 1.0, "constraints": "acyclic,memory"}, "No placement satisfies"),
    ],
)
def test_what_can_not_be_is_refused(changes: dict[str, object], message: str) -> None:
    arguments = {"chips": 4, "room": 2.0, "max_groups": 12} | changes
    with pytest.raises(DevicePlacementError, match=message):
        on_chips(GRAPH, **arguments)  # type: ignore[arg-type]
