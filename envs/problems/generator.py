"""Generator of problems: a random graph on a random machine, for a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from device_placement.envs.arrays import Bool
from device_placement.envs.costs import FREE
from device_placement.envs.devices import Device
from device_placement.envs.errors import DeviceError, check_seed
from device_placement.envs.graph.coarsening import make_coarse_graph
from device_placement.envs.problems.config import GeneratorConfig
from device_placement.envs.problems.draws import Draws
from device_placement.envs.problems.graphs import draw_graph
from device_placement.envs.problems.machines import draw_profile
from device_placement.envs.problems.seeds import PREFIX, parse_seed
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from device_placement.envs.simulation.workloads import Workload

VERSION = 1  # of the distribution; with another one, a seed means another problem


@dataclass(frozen=True)
class GeneratedProblem:
    """Graph, machine and schedule of a seed."""

    workload: Workload
    family: str  # a name of `wiring.FAMILIES`
    schedule: str  # a name of `SCHEDULES`

    def evaluator(self, schedule: str = "") -> SimulatedEvaluator:
        """Return an evaluator of its placements on all of its devices.

        Args:
            schedule: a name of `SCHEDULES`; its own by default.
        """
        return self.workload.evaluator(schedule or self.schedule)


def generate_problem(seed: int, config: GeneratorConfig | None = None) -> SimulatedEvaluator:
    """Generate the problem of a seed, and return an evaluator of its placements.

    Equal arguments give equal problems on every machine. Every op is a group, each group has a
    device that runs it, and the first device's single is valid.

    Args:
        seed: from 0 to `errors.MAX_SEED`; see `training_seeds` for those to train on.
        config: the distribution; the default one if None.

    Raises:
        DevicePlacementError: when the seed is out of range.

    >>> evaluator = generate_problem(7)
    >>> evaluator.evaluate([0] * evaluator.coarse.num_groups).valid
    True
    """
    return draw_problem(seed, config).evaluator()


def draw_problem(seed: int, config: GeneratorConfig | None = None) -> GeneratedProblem:
    """Draw the graph, the machine and the schedule of a seed, and return them.

    Graph, machine and the rest have random streams of their own.

    Args:
        seed: from 0 to `errors.MAX_SEED`.
        config: the distribution; the default one if None.

    Raises:
        DevicePlacementError: when the seed is out of range.
    """
    check_seed(seed)
    config = config or GeneratorConfig()
    choices, of_graph, of_machine = (Draws(VERSION, seed, part) for part in range(3))
    num_groups = choices.whole_scale(*config.groups)
    family, schedule = choices.one(config.families), choices.one(config.schedules)
    name = f"{PREFIX}{seed}"
    identity = f"{name} {VERSION} {config}"
    graph = draw_graph(name, identity, family, num_groups, of_graph)
    provenance = {
        "kind": "generated",
        "seed": seed,
        "version": VERSION,
        "family": family,
        "settings": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(config).items()
        },
    }
    profile = draw_profile(graph, config, of_machine, provenance)
    graph = replace(
        graph,
        devices=tuple(device.name for device in profile.devices),
        supported=~np.isnan(profile.op_s),
    )
    coarse = make_coarse_graph(graph, np.arange(num_groups), "none")
    colour = np.full(num_groups, FREE, dtype=np.int32)
    return GeneratedProblem(Workload(coarse, profile, colour), family, schedule)


def generated_evaluator(
    model: str,
    devices: Sequence[Device] | None = None,
    schedule: str = "",
    constraints: Sequence[str] = (),
) -> SimulatedEvaluator:
    """Return the evaluator of a problem that is named ``generated:SEED``.

    Args:
        model: the name.
        devices: which of its devices; one of them must run the whole model. All by default.
        schedule: a name of `SCHEDULES`; that of the problem by default.
        constraints: names of `CONSTRAINTS`.

    Raises:
        DevicePlacementError: when the name, a device or the schedule is wrong.

    >>> generated_evaluator("generated:7", schedule="pipelined").schedule
    'pipelined'
    """
    problem = draw_problem(parse_seed(model))
    if devices is None:
        return problem.workload.evaluator(schedule or problem.schedule, constraints=constraints)
    if len(devices) < 2:
        own = ", ".join(problem.workload.coarse.graph.devices)
        raise DeviceError(
            f"Got one device, {devices[0]}, of {model}; a placement needs at least two of {own}. "
            "Name more of them, or leave the devices out."
        )
    evaluator = problem.workload.evaluator(schedule or problem.schedule, devices, constraints)
    if not runs_whole_model(evaluator).any():
        whole = problem.evaluator()
        able = np.flatnonzero(runs_whole_model(whole)).tolist()
        raise DeviceError(
            f"Got the devices {', '.join(map(str, devices))} of {model}, none of which runs the "
            f"whole model; add one that does: {', '.join(str(whole.devices[i]) for i in able)}."
        )
    return evaluator


def runs_whole_model(evaluator: SimulatedEvaluator) -> Bool:
    """Return which singles are valid, (num_devices,)."""
    costs = evaluator.costs
    fits = costs.reachable_bytes() >= costs.group_bytes.sum()
    return np.asarray(fits & np.isfinite(costs.compute_s).all(axis=0))
