"""OpenVINO's automatic HETERO: the devices are priorities, the first that can run an op does.

See OpenVINO's page "Heterogeneous Execution", automatic mode.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers.knowledge import innermost
from device_placement.agents.placers.moves import Choice, Space
from device_placement.agents.placers.result import PlacerResult, Trace
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.execution.lock import machine_lock
from device_placement.envs.execution.openvino_evaluator import OpenVINOEvaluator


@dataclass(frozen=True)
class Automatic:
    """What HETERO chooses by itself; one evaluation, nothing is random.

    With an evaluator that measures, OpenVINO is asked, and a group goes where most of its ops
    would, of the devices that run all of them. In the simulator it goes to the first device,
    in their order, that runs it.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> Automatic().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, as `Placer` says."""
        trace, space, inner = Trace(evaluator, budget), Space.of(evaluator), innermost(evaluator)
        if isinstance(inner, OpenVINOEvaluator):
            choice = hetero_choice(inner, space)
        else:
            choice = space.allowed.argmax(axis=1)
        trace.evaluate(space.assignment(choice))
        return trace.result()


def hetero_choice(evaluator: OpenVINOEvaluator, space: Space) -> Choice:
    """(num_units,) the devices that HETERO assigns the ops to, by majority."""
    names = [device.name for device in evaluator.devices]
    with machine_lock():  # plugins may compile to tell what they support
        answer = evaluator.core.query_model(evaluator.model, f"HETERO:{','.join(names)}")
    votes = np.zeros(space.allowed.shape)
    unit = space.unit[evaluator.coarse.op_group]
    for op, name in enumerate(evaluator.coarse.graph.op_names):
        if name in answer and not evaluator.coarse.graph.is_constant[op]:
            votes[unit[op], names.index(answer[name])] += 1
    return np.asarray(np.where(space.allowed, votes, -1.0).argmax(axis=1))
