"""Compile time, threads and memory of random placements under the data-flow executor.

Each model's placements are compiled one after the other in a process of its own: under `dataflow`
with the cache of compiled regions and without it, and under HETERO. Run it with::

    python -m device_placement.benchmarks.dataflow_compile
"""

from __future__ import annotations

import itertools
import multiprocessing
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import psutil

from device_placement.benchmarks.study import LiveTable, ModelsConfig, random_placements, run
from device_placement.envs.devices import make_core, parse_devices
from device_placement.envs.executors.dataflow import DataflowModel, DeviceThreads, RegionCache
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.models.loading import load_model
from device_placement.envs.placement import Placement

WAYS = ("dataflow, cache", "dataflow", "hetero")


@dataclass(frozen=True)
class CompileConfig(ModelsConfig):
    """Options of the study."""

    devices: str = "halves"
    """Two devices, comma-separated; halves: two CPU instances with half of the cores each."""
    placements: int = 200
    """Random placements per model, compiled with the cache."""
    others: int = 20
    """How many of them are also compiled without the cache, and under HETERO."""
    seed: int = 0
    """Seed of the placements."""


@dataclass(frozen=True)
class Compiled:
    """One placement that was compiled."""

    wall_s: float
    cpu_s: float
    num_regions: int
    num_compiled: int  # of the regions
    num_threads: int  # of the process, with the placement's model in it
    memory_mb: float  # of the process, with the placement's model in it


def compile_placements(
    model: str, devices: str, way: str, placements: int, seed: int
) -> list[Compiled]:
    """Compile random placements one after the other, and return what each took."""
    return list(_compile_each(model, devices, way, placements, seed))


def _compile_each(
    model: str, devices: str, way: str, placements: int, seed: int
) -> Iterator[Compiled]:
    parsed = parse_devices(devices)
    core, loaded = make_core(parsed), load_model(model)
    coarse = coarsen(read_graph(loaded, parsed, core))
    cache = RegionCache()
    process = psutil.Process()
    with DeviceThreads({one.name: one.cores for one in parsed}) as threads:
        for assignment in random_placements(coarse, placements, seed):
            placement = Placement.from_groups(coarse, parsed, assignment)
            misses = cache.num_misses
            start, cpu = time.perf_counter(), time.process_time()
            compiled: object
            if way == "hetero":
                compiled = core.compile_model(placement.apply(loaded), placement.hetero_name)
                regions = num_compiled = 0
            else:
                names = [parsed[device].name for device in placement.op_devices]
                planned = plan_regions(
                    loaded,
                    dict(zip(placement.op_names, names, strict=True)),
                    dict(zip(placement.op_names, placement.op_groups, strict=True)),
                )
                kept = cache if way == WAYS[0] else None
                compiled = DataflowModel(core, loaded, planned, threads=threads, cache=kept)
                regions = len(planned)
                num_compiled = cache.num_misses - misses if kept else regions
            yield Compiled(
                time.perf_counter() - start,
                time.process_time() - cpu,
                regions,
                num_compiled,
                process.num_threads(),
                process.memory_info().rss / 1e6,
            )
            del compiled


def measure(model: str, way: str, placements: int, config: CompileConfig) -> list[Compiled]:
    """Return what compiling takes, measured in a fresh process."""
    devices = config.devices
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        given = model, devices, way, placements, config.seed
        return pool.submit(compile_placements, *given).result()


def main(config: CompileConfig) -> int:
    """Print a line for each model and way of compiling."""
    table = LiveTable(
        "model:<14",
        "executor:<16",
        "placements:>11",
        "wall s:>8.2f",
        "CPU s:>8.2f",
        "  95 % interval:<18",
        "regions:>8.0f",
        "compiled:>9.0f",
        "threads:>8",
        "peak MB:>8.0f",
    )
    for model, way in itertools.product(config.models, WAYS):
        number = config.placements if way == WAYS[0] else config.others
        found = measure(model, way, number, config)
        add_row(table, model, way, found)
        if way == WAYS[0]:
            add_row(table, model, f"  the first {config.others}", found[: config.others])
    return 0


def add_row(table: LiveTable, model: str, way: str, found: Sequence[Compiled]) -> None:
    """Add medians, and the peaks of threads and memory."""
    low, high = median_interval([one.cpu_s for one in found])
    table.add(
        model,
        way,
        len(found),
        statistics.median(one.wall_s for one in found),
        statistics.median(one.cpu_s for one in found),
        f"  {low:.2f} - {high:.2f}",
        statistics.median(one.num_regions for one in found),
        statistics.median(one.num_compiled for one in found),
        max(one.num_threads for one in found),
        max(one.memory_mb for one in found),
    )


if __name__ == "__main__":
    run(main, CompileConfig, __doc__)
