"""Processes of a cluster on this machine, and what the parts of the study are asked."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from device_placement.benchmarks.study import OneModelConfig
from device_placement.envs.measuring.cluster import Cluster, full_address

COMMAND = (sys.executable, "-m", "device_placement.agents.cli")
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
