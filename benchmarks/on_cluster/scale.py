"""Evaluations a second with many targets, whose measurements only take their time."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil

from device_placement.benchmarks.on_cluster.processes import ClusterStudyConfig, Started
from device_placement.benchmarks.study import LiveTable
from device_placement.envs.measuring.cluster import Cluster, import_dask, quiet
from device_placement.envs.measuring.target_report import CLOCK

HOSTED = 25  # simulated targets in a process


def host(address: str, first: int, number: int) -> None:
    """Serve a scheduler as many targets, in threads of this process, until it ends."""
    distributed = import_dask()
    quiet()

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for one in range(first, first + number):
                worker = distributed.Worker(
                    address,
                    name=f"target{one}",
                    nthreads=1,
                    host="127.0.0.1",
                    resources={CLOCK: 1},
                    memory_limit=0,
                    dashboard=False,
                    dashboard_address="127.0.0.1:0",
                )
                await stack.enter_async_context(worker)
            await asyncio.Event().wait()

    asyncio.run(main())


@contextlib.contextmanager
def hosted(started: Started, number: int) -> Iterator[None]:
    """Start simulated targets, and end them afterwards."""
    names = []
    for first in range(0, number, HOSTED):
        several = min(HOSTED, number - first)
        call = f"host({started.address!r}, {first}, {several})"
        names.append(f"host{first}")
        code = f"from device_placement.benchmarks.on_cluster.scale import host; {call}"
        started.start(names[-1], sys.executable, "-c", code)
    started.wait_for(number)
    try:
        yield
    finally:
        for name in names:
            started.kill(name)


def scale(config: ClusterStudyConfig) -> bool:
    """Count evaluations a second for numbers of targets, and whose time they take."""
    print(
        f"scale    targets whose measurements sleep {config.measurement_s:g} s; CPU time per "
        f"evaluation; all share {psutil.cpu_count()} cores"
    )
    table = LiveTable(
        "targets:>7",
        "evaluations/s:>15.1f",
        "of the ideal:>14.1%",
        "scheduler ms:>14.2f",
        "client ms:>11.2f",
        "targets ms:>12.2f",
    )
    with Started() as started:
        scheduler = psutil.Process(started.processes["scheduler"].pid)
        for number in map(int, config.targets.split(",")):
            with hosted(started, number):
                hosts = [
                    psutil.Process(one.pid)
                    for name, one in started.processes.items()
                    if name.startswith("host")
                ]
                before = [cpu_s(scheduler), cpu_s(psutil.Process()), sum(map(cpu_s, hosts))]
                done, taken_s = measure_on_all(config, started.address)
                after = [cpu_s(scheduler), cpu_s(psutil.Process()), sum(map(cpu_s, hosts))]
            each = [1e3 * (end - begin) / done for begin, end in zip(before, after, strict=True)]
            rate = done / taken_s
            table.add(number, rate, rate * config.measurement_s / number, *each)
    return True


def cpu_s(process: psutil.Process) -> float:
    """Return the seconds of CPU time that a process has used."""
    used = process.cpu_times()
    return float(used.user + used.system)


def measure_on_all(config: ClusterStudyConfig, address: str) -> tuple[int, float]:
    """Measure on all targets for some time, a thread for each; return how often, and how long."""
    with contextlib.closing(Cluster(address)) as cluster:
        workers = [*cluster.workers().values()]
        start = time.perf_counter()

        def measure(worker: Any) -> int:
            done = 0
            while time.perf_counter() - start < config.seconds:
                cluster.measure(worker, time.sleep, config.measurement_s)
                done += 1
            return done

        with ThreadPoolExecutor(len(workers)) as threads:
            done = sum(threads.map(measure, workers))
        return done, time.perf_counter() - start
