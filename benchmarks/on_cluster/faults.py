"""Faults while a cluster measures: nothing may be lost, or counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from device_placement.benchmarks.on_cluster.processes import ClusterStudyConfig, Started
from device_placement.benchmarks.study import progress, random_placements
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.cluster import Cluster, LostSchedulerError
from device_placement.envs.measuring.config import MeasureConfig


@dataclass
class Tally:
    """Evaluations during a fault, and what the store has of them."""

    asked: int = 0
    valid: int = 0
    transient: int = 0
    stored: int = 0
    distinct: int = 0
    seconds: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether nothing was lost or counted twice."""
        counts = {self.asked, self.valid, self.stored, self.distinct}
        return len(counts) == 1 and not self.transient

    def __str__(self) -> str:
        return (
            f"{self.asked} evaluations in {self.seconds:.0f} s: {self.valid} valid, "
            f"{self.transient} transient; {self.stored} rows stored, of {self.distinct} "
            f"placements: {'nothing lost or doubled' if self.whole else 'LOST OR DOUBLED'}"
        )


def evaluate_under(
    config: ClusterStudyConfig,
    started: Started,
    number: int,
    fault: Callable[[int], None],
    address: str = "",
) -> Tally:
    """Evaluate distinct placements on the target, each after a call of a fault.

    Args:
        config: model and devices.
        started: with a target.
        number: of placements.
        fault: is called with the number of the evaluation that follows.
        address: of the scheduler, if it is another one than the cluster's.
    """
    store, tally = started.folder / "client.sqlite", Tally()
    measuring = MeasureConfig(
        on=address or started.address, store=str(store), confirmations=0, max_samples=6
    )
    evaluator = make_evaluator(config.model, config.devices, measuring=measuring)
    with contextlib.closing(evaluator):
        # The reference has a table of its own.
        evaluator.evaluate([0] * evaluator.coarse.num_groups)
        drawn = random_placements(evaluator.coarse, 2 * number, config.seed)
        distinct = [list(one) for one in dict.fromkeys(map(tuple, drawn)) if len(set(one)) > 1]
        start = time.perf_counter()
        for index, one in enumerate(distinct[:number]):
            fault(index)
            found = evaluator.evaluate(one)
            tally.asked += 1
            tally.valid += found.valid
            tally.transient += found.transient
        tally.seconds = time.perf_counter() - start
    with contextlib.closing(sqlite3.connect(store)) as connection:
        (tally.stored, tally.distinct) = connection.execute(
            "SELECT COUNT(*), COUNT(DISTINCT op_devices) FROM measurements"
        ).fetchone()
    return tally


def worker_process(started: Started) -> psutil.Process:
    """Return the process that measures, a child of the command's."""
    with contextlib.closing(Cluster(started.address)) as cluster:
        (worker,) = cluster.workers().values()
        return psutil.Process(cluster.run(worker, os.getpid))


def later(seconds: float, action: Callable[[], object]) -> threading.Thread:
    """Call something in a thread after some seconds, and return the thread."""

    def act() -> None:
        time.sleep(seconds)
        action()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def stand_still(process: psutil.Process | subprocess.Popen[bytes], seconds: float) -> None:
    """Stop a process shortly afterwards, and let it go on after some seconds."""
    later(0.1, lambda: process.send_signal(signal.SIGSTOP))
    later(0.1 + seconds, lambda: process.send_signal(signal.SIGCONT))


def kills(config: ClusterStudyConfig) -> bool:
    """Kill the worker during many evaluations."""
    generator = random.Random(config.seed)
    chosen = {*generator.sample(range(config.evaluations), config.kills)}
    killed = 0

    def kill() -> None:
        nonlocal killed
        with contextlib.suppress(psutil.NoSuchProcess, KeyError, ValueError, LostSchedulerError):
            worker_process(started).kill()
            killed += 1

    def fault(index: int) -> None:
        if index in chosen:
            started.wait_for(1)
            later(generator.uniform(0.0, 0.5), kill)
            progress(f"kills: evaluation {index}, {killed} killed")

    with Started() as started:
        started.start_targets("target")
        tally = evaluate_under(config, started, config.evaluations, fault)
    print(f"kills    {killed} workers killed; {tally}")
    return tally.whole and killed == config.kills


def restart(config: ClusterStudyConfig) -> bool:
    """Kill the scheduler during an evaluation, and start it again after 5 s."""

    def fault(index: int) -> None:
        if index == config.placements // 2:
            later(0.1, lambda: started.kill("scheduler"))
            later(5.0, started.start_scheduler)

    with Started() as started:
        started.start_targets("target")
        tally = evaluate_under(config, started, config.placements, fault)
    print(f"restart  scheduler killed, back after 5 s; {tally}")
    return tally.whole


def stop(config: ClusterStudyConfig) -> bool:
    """Stop the worker for a while during an evaluation."""

    def fault(index: int) -> None:
        if index == config.placements // 2:
            stand_still(worker_process(started), config.stopped_s)

    with Started() as started:
        started.start_targets("target")
        tally = evaluate_under(config, started, config.placements, fault)
    print(f"stop     worker stopped for {config.stopped_s:g} s; {tally}")
    return tally.whole


def network(config: ClusterStudyConfig) -> bool:
    """Let worker and client reach the scheduler through a process that is stopped for a while."""

    def fault(index: int) -> None:
        if index == config.placements // 2:
            stand_still(started.processes["line"], config.stopped_s)

    with Started() as started:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        to = started.address.rpartition(":")[2]
        code = (
            f"from device_placement.benchmarks.on_cluster.faults import carry; carry({port}, {to})"
        )
        started.start("line", sys.executable, "-c", code)
        started.start_targets("target", address=f"127.0.0.1:{port}")
        tally = evaluate_under(
            config, started, config.placements, fault, address=f"127.0.0.1:{port}"
        )
    print(f"network  nothing carried for {config.stopped_s:g} s; {tally}")
    return tally.whole


def carry(port: int, to: int) -> None:
    """Carry connections from one port of this machine to another, until the process ends."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", to)
        await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(main())
