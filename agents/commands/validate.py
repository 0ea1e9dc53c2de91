"""Command `validate`: check whether a saved placement still has its claimed time and outputs."""

from __future__ import annotations

import dataclasses

from device_placement.agents.commands.config import ValidateConfig
from device_placement.envs.devices import make_core
from device_placement.envs.executors import AUTO
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.validation import validate_placement
from device_placement.envs.models.loading import load_model, parse_input_shapes
from device_placement.envs.placement import Placement

NOT_JUDGED = 3  # the exit status


def validate_file(config: ValidateConfig) -> int:
    """Measure a saved placement again, check its outputs and print a report.

    Returns:
        The exit status: 0 when time and outputs hold, 1 when one does not, 3 when the outputs
        can't be judged and the time holds.

    Raises:
        DevicePlacementError: when placement, model or devices are wrong or don't fit.
    """
    placement = Placement.load(config.placement, config.devices)
    model = load_model(config.model, input_shapes=parse_input_shapes(config.input_shapes))
    core = make_core(placement.devices)
    coarse = placement.coarsen(read_graph(model, placement.devices, core))
    if config.executor == AUTO:
        config = dataclasses.replace(config, executor=placement.executor)
    inputs = config.inputs or None
    evaluator = OpenVINOEvaluator(
        model, coarse, placement.devices, config, core=core, inputs=inputs
    )
    validation = validate_placement(evaluator, placement)
    print(f"{config.placement} on {', '.join(map(str, placement.devices))}\n")
    print(validation.report())
    if validation.time_holds and not validation.judged:
        return NOT_JUDGED
    return 0 if validation.holds else 1
