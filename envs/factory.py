"""Factory: make evaluators from plain arguments."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack, overload

from device_placement.envs.constraints import parse_constraints
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator, check_evaluator
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.measuring.config import (
    MeasureConfig,
    MeasureOptions,
    make_measure_config,
)
from device_placement.envs.measuring.inputs import Inputs, read_inputs
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.target import LocalTarget, Target, devices_here
from device_placement.envs.models.loading import load_model, model_file
from device_placement.envs.models.normalisation import Shapes
from device_placement.envs.problems.generator import generated_evaluator
from device_placement.envs.problems.seeds import is_generated
from device_placement.envs.simulation.hardware import HARDWARE
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.roofline import derive_profile
from device_placement.envs.simulation.schedule import SCHEDULES
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from device_placement.envs.simulation.workloads import is_workload, load_workload

# Whether the devices must be on this machine.
EVALUATORS = {"openvino": True, "simulator": False}
SEQUENTIAL = "sequential"  # the schedule of a simulator, unless another one is given


class EvaluatorOptions(MeasureOptions, total=False):
    """Keyword arguments of `make_evaluator`, which the environments pass to it."""

    coarsening: str
    max_groups: int | None
    input_shapes: Shapes | None
    inputs: Inputs | None
    hardware: str
    profile: str | os.PathLike[str] | HardwareProfile | None
    schedule: str
    constraints: str | Sequence[str] | None
    measuring: MeasureConfig | None


@overload
def make_evaluator(
    model: Any = ...,
    devices: str | Sequence[str | Device] = ...,
    *,
    evaluator: Literal["openvino"] = ...,
    **options: Unpack[EvaluatorOptions],
) -> OpenVINOEvaluator: ...


@overload
def make_evaluator(
    model: Any = ...,
    devices: str | Sequence[str | Device] = ...,
    *,
    evaluator: Literal["simulator"],
    **options: Unpack[EvaluatorOptions],
) -> SimulatedEvaluator: ...


@overload
def make_evaluator(
    model: Any = ...,
    devices: str | Sequence[str | Device] = ...,
    *,
    evaluator: str,
    **options: Unpack[EvaluatorOptions],
) -> OpenVINOEvaluator | SimulatedEvaluator: ...


def make_evaluator(
    model: Any = "resnet50",
    devices: str | Sequence[str | Device] = "auto",
    *,
    coarsening: str = "fusion",
    max_groups: int | None = None,
    evaluator: str = "openvino",
    input_shapes: Shapes | None = None,
    inputs: Inputs | None = None,
    hardware: str = "",
    profile: str | os.PathLike[str] | HardwareProfile | None = None,
    schedule: str = "",
    constraints: str | Sequence[str] | None = None,
    measuring: MeasureConfig | None = None,
    **options: Unpack[MeasureOptions],
) -> OpenVINOEvaluator | SimulatedEvaluator:
    """Return an evaluator for the placements of one model.

    Args:
        model: what `load_model` takes; for the simulator also a file of `load_workload`, which
            has its own groups and costs, or ``generated:SEED``, a problem of `generate_problem`.
        devices: what `parse_devices` takes; at least two. For the simulator, ``auto`` means
            those of the hardware, profile, workload or generated problem. With the executor
            ``auto`` or ``dataflow`` it means two halves of the cores, if a CPU is all there is and
            the model can be cut.
        coarsening: a method of `coarsen`.
        max_groups: maximum number of groups.
        evaluator: ``openvino`` measures, ``simulator`` predicts.
        input_shapes: static shapes for a model with dynamic ones.
        inputs: for ``openvino``, values of the model's inputs: an array for each by name, a list
            of several such samples, or an ``.npz`` file; see `read_inputs`. Invented if None.
        hardware: for the simulator, a name of `HARDWARE`; ``desktop`` by default.
        profile: for the simulator, instead of hardware: a `HardwareProfile`, or its file.
        schedule: for the simulator, a name of `SCHEDULES`; by default ``sequential``, or that of a
            generated problem or of the hardware: ``pipelined`` for ``mcm``.
        constraints: for the simulator, names of `CONSTRAINTS` that placements must satisfy, as a
            list or with commas between them; by default those of the hardware, which are none but
            for ``mcm``.
        measuring: how to measure, for ``openvino``; the defaults if None.
        options: fields of `MeasureConfig`, which override those of ``measuring``.

    Raises:
        DevicePlacementError: or a subclass, when an argument is wrong.

    >>> make_evaluator("diamond", "CPU,GPU", evaluator="simulator").devices[1].name
    'GPU'
    """
    here = choose("evaluator", evaluator, EVALUATORS)
    config = make_measure_config(measuring, **options)
    machine = choose("hardware", hardware, HARDWARE) if hardware else None
    chosen_schedule = schedule or (machine.schedule if machine else SEQUENTIAL)
    choose("schedule", chosen_schedule, SCHEDULES)
    demanded = parse_constraints(
        (machine.constraints if machine else ()) if constraints is None else constraints
    )
    if here and is_generated(model):
        raise DevicePlacementError(
            f"Got the model {model!r} with evaluator='openvino', but a generated problem can only "
            "be simulated; add evaluator='simulator'."
        )
    if here and (hardware or profile or demanded or chosen_schedule != SEQUENTIAL):
        raise DevicePlacementError(
            "Got hardware, profile, schedule or constraints, which are for the simulator; add "
            "evaluator='simulator'. Or, for a profile that agents should see, costs='profile'."
        )
    if not here and inputs is not None:
        raise DevicePlacementError(
            "Got inputs, which are for measuring, with the simulator; leave them out, or use "
            "evaluator='openvino'."
        )
    if not here and config.on:
        raise DevicePlacementError(
            f"Got on={config.on!r}, which is for measuring, with the simulator; leave it out, or "
            "use evaluator='openvino'."
        )
    if hardware and profile:
        raise DevicePlacementError("Got both hardware and a profile; give one of them.")
    if not here and is_workload(model):
        if hardware or profile or max_groups is not None:
            raise DevicePlacementError(
                "Got hardware, profile or max_groups with a workload, which has groups and costs "
                "of its own; leave them out."
            )
        return _workload(model, devices, chosen_schedule, demanded)
    if is_generated(model):
        return _generated(
            model,
            devices,
            schedule,
            demanded,
            hardware=hardware,
            profile=profile,
            max_groups=max_groups is not None,
            coarsening=coarsening not in ("fusion", "none"),  # the default, and what it has
            input_shapes=input_shapes,
        )
    loaded = load_model(model, input_shapes=input_shapes)
    if not here:
        return _simulator(
            loaded,
            devices,
            coarsening,
            max_groups,
            hardware or "desktop",
            profile,
            chosen_schedule,
            demanded,
        )
    checked = None if inputs is None else read_inputs(loaded, inputs)
    target = open_target(loaded, devices, config)
    try:
        check_several(target.devices)
        coarse = coarsen(target.read_graph(), coarsening, max_groups)
        return OpenVINOEvaluator(
            loaded,
            coarse,
            target.devices,
            config,
            file=model_file(model),
            inputs=checked,
            where=target,
        )
    except BaseException:
        target.close()
        raise


def open_target(model: Any, devices: str | Sequence[str | Device], config: MeasureConfig) -> Target:
    """Return where placements of a model are measured: here, or on the targets of a cluster.

    Args:
        model: the normalised model.
        devices: what `parse_devices` takes, on the machine that measures.
        config: has the cluster.

    Raises:
        DevicePlacementError: or a subclass, when a device is missing there, or the cluster can't be
            reached, lacks the target, or has other versions.
    """
    if config.on:
        from device_placement.envs.measuring.cluster_bench import ClusterTarget

        return ClusterTarget(model, devices, config)
    return LocalTarget(model, devices_here(model, devices, config.executor))


def _simulator(
    model: Any,
    devices: str | Sequence[str | Device],
    coarsening: str,
    max_groups: int | None,
    hardware: str,
    profile: str | os.PathLike[str] | HardwareProfile | None,
    schedule: str,
    constraints: Sequence[str],
) -> SimulatedEvaluator:
    if isinstance(profile, str | os.PathLike):
        trusted = () if devices == "auto" else devices
        profile = HardwareProfile.load(profile, trusted) if profile else None
    if devices == "auto":
        devices = profile.devices if profile else usual_devices(hardware)
    parsed = check_several(parse_devices(devices))
    measured = profile is not None and profile.provenance["kind"] == "measured"
    graph = read_graph(model, parsed, simulated=True, fusion={} if measured else None)
    names = [device.name for device in parsed]
    chosen = profile.select(names) if profile else derive_profile(graph, hardware, parsed)
    return simulate(graph, parsed, chosen, coarsening, max_groups, schedule, constraints)


def usual_devices(hardware: str) -> Sequence[str | Device]:
    """Return the devices that ``auto`` means for a machine.

    Args:
        hardware: a name of `HARDWARE`.
    """
    return choose("hardware", hardware, HARDWARE).default


def simulate(
    graph: ComputationGraph,
    devices: tuple[Device, ...],
    profile: HardwareProfile,
    coarsening: str = "fusion",
    max_groups: int | None = None,
    schedule: str = "sequential",
    constraints: Sequence[str] = (),
) -> SimulatedEvaluator:
    """Return an evaluator that simulates placements of a computation graph.

    Args:
        graph: of one model; the profile decides which device supports which op.
        devices: at least two.
        profile: of these devices.
        coarsening: a method of `coarsen`.
        max_groups: maximum number of groups.
        schedule: a name of `SCHEDULES`.
        constraints: names of `CONSTRAINTS`.
    """
    graph = replace(graph, supported=profile.supported(graph))
    coarse = coarsen(graph, coarsening, max_groups)
    return SimulatedEvaluator(
        coarse, devices, profile=profile, schedule=schedule, constraints=constraints
    )


def _workload(
    path: str | os.PathLike[str],
    devices: str | Sequence[str | Device],
    schedule: str,
    constraints: Sequence[str],
) -> SimulatedEvaluator:
    workload = load_workload(path)
    chosen = workload.profile.devices if devices == "auto" else parse_devices(devices)
    return workload.evaluator(schedule, check_several(chosen), constraints)


def _generated(
    model: str,
    devices: str | Sequence[str | Device],
    schedule: str,
    constraints: Sequence[str],
    **others: object,
) -> SimulatedEvaluator:
    """Return the evaluator of a generated problem; refuse other arguments that are given."""
    if given := [name for name, value in others.items() if value]:
        raise DevicePlacementError(
            f"Got {', '.join(given)} with {model!r}; a generated problem has groups and costs of "
            "its own. Leave them out."
        )
    chosen = None if devices == "auto" else parse_devices(devices)
    return generated_evaluator(model, chosen, schedule, constraints)


def make_evaluators(
    model: Any,
    devices: Any,
    evaluator: str | Evaluator | Sequence[Evaluator],
    **options: Unpack[EvaluatorOptions],
) -> tuple[Evaluator, ...]:
    """Make one evaluator per model; return evaluators that are passed in unchanged.

    Args:
        model: what `load_model` takes, or a list of it.
        devices: what `parse_devices` takes.
        evaluator: a name, an evaluator, or a list of evaluators for the same devices.
        options: the other arguments of `make_evaluator`.

    Raises:
        DevicePlacementError: as `make_evaluator`; also when the evaluators' devices differ or
            an attribute of one is missing.
    """
    made: list[Evaluator]
    if isinstance(evaluator, str):
        models = model if isinstance(model, (list, tuple)) else [model]
        made = [make_evaluator(one, devices, evaluator=evaluator, **options) for one in models]
    else:
        made = [*evaluator] if isinstance(evaluator, Sequence) else [evaluator]
        for one in made:
            check_evaluator(one)
    if not made or any(one.devices != made[0].devices for one in made):
        raise DevicePlacementError(
            "Got no model, or evaluators with different devices; give at least one, all with the "
            "same devices."
        )
    check_several(made[0].devices)
    return tuple(made)


def check_several(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Return the devices after checking that there are at least two.

    Raises:
        DeviceError: when there is only one.
    """
    if len(devices) < 2:
        raise DeviceError(
            f"Got one device, {devices[0]}; a placement needs at least two. Add "
            "another device, or a further CPU instance: "
            f"{devices[0]},CPU_F32:INFERENCE_PRECISION_HINT=f32."
        )
    return devices
