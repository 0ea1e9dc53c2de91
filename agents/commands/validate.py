"""Command `validate`: check the time and the outputs of a saved placement, or of affinities."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping

from device_placement.agents.commands.config import ValidateConfig
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.executors import AUTO
from device_placement.envs.factory import open_target
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.validation import Validation, validate_placement
from device_placement.envs.models.loading import load_model, parse_input_shapes, source_names
from device_placement.envs.placement import Placement
from device_placement.envs.user_affinities import place_by, read_affinities

NOT_JUDGED = 3  # the exit status


def validate_file(config: ValidateConfig) -> int:
    """Measure a saved placement, or a user's own affinities, check outputs and print a report.

    Returns:
        The exit status: 0 when time and outputs hold, 1 when one does not, 3 when the outputs
        can't be judged and the time holds.

    Raises:
        DevicePlacementError: when placement, model or devices are wrong or don't fit.
    """
    config = _in_order(config)
    affinities = read_affinities(config.placement)
    model = load_model(config.model, input_shapes=parse_input_shapes(config.input_shapes))
    advice: tuple[str, ...] = ()
    if affinities:
        target = open_target(model, _devices_of(affinities, config), config)
        graph = target.read_graph()
        found = place_by(affinities, graph, model, target.devices, source_names(config.model))
        placement, advice = found.placement, found.advice
    else:
        placement = Placement.load(config.placement, config.devices)
        target = open_target(model, placement.devices, config)
        graph = target.read_graph()
    coarse = placement.coarsen(graph)
    if config.executor == AUTO:
        config = dataclasses.replace(config, executor=placement.executor)
    inputs = config.inputs or None
    evaluator = OpenVINOEvaluator(
        model, coarse, placement.devices, config, inputs=inputs, where=target
    )
    with contextlib.closing(evaluator):
        validation = validate_placement(evaluator, placement)
    print(f"{config.placement} on {', '.join(map(str, placement.devices))}\n")
    print(validation.report())
    for line in (*advice, *_advice_on_time(validation, bool(affinities))):
        print(f"advice   {line}")
    if validation.time_holds and not validation.judged:
        return NOT_JUDGED
    return 0 if validation.holds else 1


def _in_order(config: ValidateConfig) -> ValidateConfig:
    """Return the settings with the placement first; ``MODEL placement.json`` is understood, too."""
    if config.model.endswith(".json") and not config.placement.endswith(".json"):
        return dataclasses.replace(config, placement=config.model, model=config.placement)
    return config


def _devices_of(affinities: Mapping[str, str], config: ValidateConfig) -> tuple[Device, ...]:
    """Return the devices that affinities name, with the properties given for them.

    Raises:
        DeviceError: when one can't be read.
    """
    given = parse_devices(config.devices) if config.devices else ()
    known = {device.name for device in given}
    named = [name for name in dict.fromkeys(affinities.values()) if name not in known]
    return parse_devices([*given, *(Device.parse(name) for name in named)])


def _advice_on_time(validation: Validation, is_own: bool) -> list[str]:
    """Return what to do about a user's own placement that is slower, or whose outputs are off."""
    found = validation.evaluation
    if not is_own or not found.valid:
        return []
    advice = []
    if found.interval_s[0] > validation.best_single_s:
        advice.append(
            f"All on {validation.best_single} is faster. Each of the {found.num_subgraphs} "
            "subgraphs costs a hand-over, and under HETERO they run in turn; "
            "`device-placement optimize MODEL` says what a placement can gain at most."
        )
    if validation.judged and not validation.outputs_hold:
        advice.append(
            "Outputs differ by more than rounding explains. Set INFERENCE_PRECISION_HINT=f32 for "
            "the devices to see whether their precision is the cause."
        )
    return advice
