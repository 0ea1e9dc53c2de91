"""Speed of the data-flow executor: what a region costs, and what running side by side gains.

First chains of next to no work, whose ops alternate between two devices, so that each op is a
region: microseconds per region under `dataflow` and under HETERO. Then two devices of one core
each: Inception-V3, placed by HEFT on profiled costs, and two copies of ResNet-50, one on each
device. The same placement runs under both executors, in turns with the singles and with what
OpenVINO does by itself with all cores. Run it with::

    python -m device_placement.benchmarks.dataflow
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.agents.placers.list_scheduling import Heft
from device_placement.benchmarks.study import LiveTable, progress, run, timed
from device_placement.envs.devices import make_core, parse_devices
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.executors.dataflow import DataflowModel, DeviceThreads, Region
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import Contender, compare, contenders, paired_ratio
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.models.loading import load_model
from device_placement.envs.models.side_by_side import combine_models
from device_placement.envs.models.zoo.chain import chain
from device_placement.envs.placement import Placement, set_affinities
from device_placement.envs.profiling.measured_profile import measure_profile

BEST_SINGLE = "best single"


@dataclass(frozen=True)
class DataflowConfig:
    """Options of the study."""

    devices: str = "halves"
    """Two devices, comma-separated; halves: two CPU instances with half of the cores each."""
    regions: tuple[int, ...] = (1, 4, 16, 64)
    """Lengths of the chains."""
    runs: int = 300
    """Runs of each chain under each executor."""
    placements: int = 24
    """Random placements that the profile of Inception-V3 is fitted to."""
    rounds: int = 30
    """Samples of each contender."""
    seed: int = 0
    """Seed of the random placements."""


def time_chain(length: int, devices: str, runs: int) -> tuple[list[float], list[float]]:
    """Run a chain under both executors in turns; return the seconds of each run."""
    parsed = parse_devices(devices)
    core, model = make_core(parsed), load_model(chain(length))
    homes = [parsed[number % len(parsed)].name for number in range(length)]
    ops = [op.get_friendly_name() for op in model.get_ordered_ops()]
    regions = [Region(home, (op,)) for home, op in zip(homes, ops[1:-1], strict=True)]
    placed = model.clone()
    set_affinities(placed, ops, [homes[0], *homes, homes[-1]])  # Parameter, chain, Result
    hetero = core.compile_model(placed, f"HETERO:{','.join(one.name for one in parsed)}")
    seconds: tuple[list[float], list[float]] = [], []
    with DeviceThreads({one.name: one.cores for one in parsed}) as threads:
        dataflow = DataflowModel(core, model, regions, threads=threads)
        requests: Sequence[Any] = dataflow.create_infer_request(), hetero.create_infer_request()
        for _ in range(runs):
            for request, found in zip(requests, seconds, strict=True):
                found.append(timed(request.infer)[1])
    return seconds


def compare_executors(
    evaluator: OpenVINOEvaluator, assignment: Sequence[int], rounds: int
) -> dict[str, Evaluation]:
    """Time a placement under both executors, the singles and AUTO, in turns."""
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
    entry = Entry(placement.hetero_name, bytes(placement.op_devices), executor="hetero")
    listed = contenders(evaluator, {"dataflow": assignment})
    return compare(evaluator, [*listed, Contender("HETERO", entry)], rounds, max_seconds=300.0)


def heft_assignment(devices: str, config: DataflowConfig) -> tuple[int, ...]:
    """Return the placement of Inception-V3 by HEFT, on costs profiled on these devices."""
    progress("Profiling Inception-V3 ...")
    profile = measure_profile(
        "inception_v3",
        devices,
        placements=config.placements,
        seed=config.seed,
        executor="dataflow",
        store=None,
    )
    simulated = make_evaluator(
        "inception_v3", devices, evaluator="simulator", profile=profile, schedule="dataflow"
    )
    return Heft().place(simulated, budget=1 + len(simulated.devices), seed=config.seed).assignment


def copy_assignment(evaluator: OpenVINOEvaluator) -> list[int]:
    """Return the placement that puts copy 0 on the first device, and copy 1 on the second.

    Names of ops are numbered in a normalised model, so each copy is found by its input.
    """
    coarse = evaluator.coarse
    copy = np.full(coarse.num_groups, -1)
    inputs = [n for n, kind in enumerate(coarse.graph.op_types) if kind == "Parameter"]
    copy[coarse.op_group[inputs]] = range(len(inputs))
    for producer, consumer in coarse.edge_index.T.tolist():  # in topological order of consumers
        copy[consumer] = max(copy[consumer], copy[producer])
    return [int(number) for number in np.maximum(copy, 0)]


def add_rows(table: LiveTable, title: str, found: dict[str, Evaluation], singles: int) -> None:
    """Add a row for each contender: its median, and its speed over the best single."""
    names = list(found)[:singles]
    best = min(names, key=lambda name: found[name].time_s)
    for name, one in found.items():
        ratio, (low, high) = paired_ratio(found[best], one)
        table.add(
            title, name, 1e3 * one.time_s, ratio, f"{low:.3f} - {high:.3f}", one.num_subgraphs
        )


def main(config: DataflowConfig) -> int:
    """Print the costs of regions, then the speeds of both executors."""
    devices = config.devices
    table = LiveTable("regions:>7", "dataflow us:>13.1f", "HETERO us:>11.1f", "  per region:<28")
    first: list[float] = []
    for length in config.regions:
        seconds = time_chain(length, devices, config.runs)
        medians = [1e6 * statistics.median(one) for one in seconds]
        first = first or medians
        each = [(now - then) / max(length - 1, 1) for now, then in zip(medians, first, strict=True)]
        low, high = median_interval([1e6 * one for one in seconds[0]])
        text = f"  {each[0]:.1f} and {each[1]:.1f} us" if length > 1 else ""
        table.add(length, *medians, f"{text}  (dataflow {low:.1f} - {high:.1f})")
    print()
    table = LiveTable(
        "model:<16",
        "contender:<30",
        "ms:>8.2f",
        f"  over {BEST_SINGLE}:>18.3f",
        "  95 % interval:>17",
        "regions:>9",
    )
    inception = make_evaluator("inception_v3", devices, executor="dataflow", store=None)
    with contextlib.closing(inception) as evaluator:
        found = compare_executors(evaluator, heft_assignment(devices, config), config.rounds)
        add_rows(table, "inception_v3", found, len(evaluator.devices))
    resnet = load_model("resnet50")
    twice = combine_models({"first": resnet, "second": resnet})
    with contextlib.closing(
        make_evaluator(twice, devices, executor="dataflow", store=None)
    ) as evaluator:
        found = compare_executors(evaluator, copy_assignment(evaluator), config.rounds)
        add_rows(table, "resnet50 twice", found, len(evaluator.devices))
    return 0


if __name__ == "__main__":
    run(main, DataflowConfig, __doc__)
