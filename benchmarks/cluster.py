"""Cost, faults and growth of measuring on a cluster, with processes on this machine.

The parts, each of which can be run alone (`--parts cost,kills`)::

    cost     what measuring through a cluster adds to an evaluation, paired with measuring here
    suite    a suite with two workers, in turns with two processes here; the rows must be equal
    kills    workers that are killed while they measure
    restart  a scheduler that is killed, and started again
    stop     a worker that is stopped for a while, as a machine that hangs
    network  a connection to the scheduler that carries nothing for a while
    scale    evaluations a second with many targets, whose measurements only take their time

Run it with::

    python -m device_placement.benchmarks.cluster
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from device_placement.benchmarks.isolation import LIMIT_S, cost_s
from device_placement.benchmarks.study import (
    LiveTable,
    OneModelConfig,
    judge,
    measuring_each,
    progress,
    random_placements,
    run,
    timed,
)
from device_placement.benchmarks.suite.results import RunRow, read_rows
from device_placement.envs.errors import choose
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.cluster import (
    Cluster,
    LostSchedulerError,
    full_address,
    import_dask,
    quiet,
)
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.target_report import CLOCK
from device_placement.envs.measuring.timing import median_interval

COMMAND = (sys.executable, "-m", "device_placement.agents.cli")
MOST_RATIO = 1.15  # of the suite's times
HOSTED = 25  # simulated targets in a process
READY_S = 300.0  # for processes to start


@dataclass(frozen=True)
class ClusterStudyConfig(OneModelConfig):
    """Options of the study."""

    parts: str = "cost,suite,kills,restart,stop,network,scale"
    """What to measure, comma-separated."""
    placements: int = 30
    """Random placements of cost, restart, stop and network."""
    suite: str = "quick"
    """Suite of the part of that name."""
    placers: str = "random,greedy,local_search,annealing,genetic,heft"
    """Placers of the suite."""
    seeds: int = 5
    """Seeds of the suite."""
    repeats: int = 3
    """Calls of the suite in each way, in turns."""
    evaluations: int = 200
    """Evaluations during the kills."""
    kills: int = 50
    """Workers killed during these."""
    stopped_s: float = 60.0
    """How long a worker, or the network, is stopped."""
    targets: str = "1,4,16,64,100"
    """Numbers of simulated targets."""
    measurement_s: float = 0.5
    """How long one of their measurements takes."""
    seconds: float = 15.0
    """How long each number of targets is measured."""


class Started:
    """Scheduler and targets, each with its own store and lock, in processes of this machine."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="device-placement-")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""

    def __enter__(self) -> Started:
        self.start_scheduler()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            process.wait()
        self._folder.cleanup()

    @property
    def folder(self) -> Path:
        """A folder for what a part needs."""
        return Path(self._folder.name)

    def start_scheduler(self) -> None:
        """Start the scheduler, at the port that it had before."""
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        port = self.address.rpartition(":")[2] or "0"
        self.start("scheduler", *COMMAND, "cluster", "--port", port, "--scheduler-file", str(file))
        self.wait(file.exists)
        self.address = full_address(str(file), tls=False)

    def start_targets(self, *names: str, address: str = "") -> None:
        """Start targets, and wait until they serve."""
        for name in names:
            self.start(name, *COMMAND, "worker", address or self.address, "--name", name)
        self.wait_for(len(names))

    def wait_for(self, number: int) -> None:
        """Wait until that number of workers serves."""
        with contextlib.closing(Cluster(self.address)) as cluster:
            self.wait(lambda: len(cluster.workers()) >= number)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds.

        Raises:
            OSError: when a process has ended meanwhile, or it takes too long.
        """
        end = time.monotonic() + READY_S
        while not condition():
            for name, process in [*self.processes.items()]:
                if process.poll() is not None:
                    said = (self.folder / f"{name}.log").read_text().strip().splitlines()
                    raise OSError(f"The process {name!r} ended: {(said or ['no message'])[-1]}")
            if time.monotonic() > end:
                raise OSError(f"Waited {READY_S:g} s for processes in vain.")
            time.sleep(0.05)

    def start(self, name: str, *command: str) -> None:
        """Start a process."""
        own = {
            "DEVICE_PLACEMENT_STORE": str(self.folder / f"{name}.sqlite"),
            "DEVICE_PLACEMENT_LOCK": str(self.folder / "lock"),  # they share this machine
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=os.environ | own, stdout=log, stderr=log
            )

    def kill(self, name: str) -> None:
        """Kill a process."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()


def cost(config: ClusterStudyConfig) -> bool:
    """Compare the cost of an evaluation through the cluster with that here, in pairs."""
    with Started() as started:
        started.start_targets("target")
        ways = {"here": MeasureConfig(), "cluster": MeasureConfig(on=started.address)}
        costs: dict[str, list[float]] = {name: [] for name in ways}
        with measuring_each(config, ways) as evaluators:
            coarse = evaluators["here"].coarse
            for one in random_placements(coarse, config.placements, config.seed):
                for name, evaluator in evaluators.items():
                    costs[name].append(cost_s(evaluator, one))
    added = [there - here for here, there in zip(costs["here"], costs["cluster"], strict=True)]
    median_s, (low, high) = sorted(added)[len(added) // 2], median_interval(added)
    print(
        f"cost     {1e3 * median_s:.2f} ms per evaluation ({1e3 * low:.2f} - {1e3 * high:.2f}) "
        f"added by the cluster: {judge(median_s <= LIMIT_S, f'at most {1e3 * LIMIT_S:g} ms')}"
    )
    return median_s <= LIMIT_S


def plain_rows(folder: Path) -> dict[Any, RunRow]:
    """Return the rows of a benchmark by key, without times of the run."""
    rows = read_rows(str(folder / "runs.csv"))
    return {row.key: dataclasses.replace(row, wall_s=0.0, session=0) for row in rows}


def suite(config: ClusterStudyConfig) -> bool:
    """Run a suite with two workers and with two processes here, in turns."""
    chosen = ("--suite", config.suite, "--placers", config.placers, "--seeds", str(config.seeds))
    times: dict[str, list[float]] = {"--jobs 2": [], "2 workers": []}
    equal = True
    with Started() as started:
        started.start_targets("a", "b")
        ways = {"--jobs 2": ("--jobs", "2"), "2 workers": ("--on", started.address)}
        for number in range(config.repeats):
            folders: dict[str, Path] = {}
            for name, words in ways.items():
                folders[name] = started.folder / f"{len(folders)}-{number}"
                command = [*COMMAND, "benchmark", *chosen, *words, "--out", str(folders[name])]
                _, taken_s = timed(subprocess.run, command, check=True, capture_output=True)
                times[name].append(taken_s)
                progress(f"{name}: {taken_s:.1f} s")
            first, second = map(plain_rows, folders.values())
            equal = equal and {*map(repr, first.values())} == {*map(repr, second.values())}
    ratio = min(times["2 workers"]) / min(times["--jobs 2"])
    listed = "; ".join(
        f"{name} {', '.join(f'{one:.1f}' for one in taken)} s" for name, taken in times.items()
    )
    print(
        f"suite    {listed}; ratio of the shortest {ratio:.2f}: "
        f"{judge(ratio <= MOST_RATIO, f'at most {MOST_RATIO}')}; {len(first)} rows each, "
        f"{'equal' if equal else 'NOT EQUAL'}"
    )
    return equal and ratio <= MOST_RATIO


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
        evaluator.evaluate(
            [0] * evaluator.coarse.num_groups
        )  # the reference has a table of its own
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
            process = worker_process(started)
            later(0.1, lambda: process.send_signal(signal.SIGSTOP))
            later(0.1 + config.stopped_s, lambda: process.send_signal(signal.SIGCONT))

    with Started() as started:
        started.start_targets("target")
        tally = evaluate_under(config, started, config.placements, fault)
    print(f"stop     worker stopped for {config.stopped_s:g} s; {tally}")
    return tally.whole


def network(config: ClusterStudyConfig) -> bool:
    """Let worker and client reach the scheduler through a process that is stopped for a while."""

    def fault(index: int) -> None:
        if index == config.placements // 2:
            process = started.processes["line"]
            later(0.1, lambda: process.send_signal(signal.SIGSTOP))
            later(0.1 + config.stopped_s, lambda: process.send_signal(signal.SIGCONT))

    with Started() as started:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        to = started.address.rpartition(":")[2]
        code = f"from device_placement.benchmarks.cluster import carry; carry({port}, {to})"
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
        code = f"from device_placement.benchmarks.cluster import host; {call}"
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


PARTS: dict[str, Callable[[ClusterStudyConfig], bool]] = {
    "cost": cost,
    "suite": suite,
    "kills": kills,
    "restart": restart,
    "stop": stop,
    "network": network,
    "scale": scale,
}


def main(config: ClusterStudyConfig) -> int:
    """Run the parts; return 1 when one misses its target."""
    chosen = [choose("part", name.strip(), PARTS) for name in config.parts.split(",")]
    reached = [part(config) for part in chosen]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    run(main, ClusterStudyConfig, __doc__)
