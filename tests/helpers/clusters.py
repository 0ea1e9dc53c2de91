"""Clusters for tests: in this process, and as the commands start them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from waiting import wait_until

COMMAND = [sys.executable, "-m", "device_placement.agents.cli"]


@contextlib.contextmanager
def in_process(names: Sequence[str] = ("a",), threads: int = 1, clock: int = 1) -> Iterator[str]:
    """Yield the address of a scheduler with workers, all in threads of this process."""
    from distributed import Scheduler, SpecCluster, Worker

    from device_placement.envs.measuring.cluster import quiet
    from device_placement.envs.measuring.target_report import CLOCK

    quiet()
    options = {
        "host": "127.0.0.1",
        "nthreads": threads,
        "resources": {CLOCK: clock},
        "memory_limit": 0,
        "dashboard": False,
        "dashboard_address": "127.0.0.1:0",
    }
    with SpecCluster(
        workers={name: {"cls": Worker, "options": options} for name in names},
        scheduler={
            "cls": Scheduler,
            "options": {
                "host": "127.0.0.1",
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
            },
        },
        silence_logs=50,
    ) as cluster:
        yield cluster.scheduler_address


@dataclass
class Commands:
    """Processes of `device-placement cluster` and `device-placement worker`."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    address: str = ""

    def start_scheduler(self, *options: str) -> None:
        """Start the scheduler, at the port that it had before."""
        port = self.address.rpartition(":")[2] or "0"
        file = self.folder / "scheduler.json"
        self._start("scheduler", "cluster", "--port", port, "--scheduler-file", str(file), *options)
        wait_until(file.exists, "the scheduler starts")
        from device_placement.envs.measuring.cluster import full_address

        self.address = full_address(str(file), tls=False)

    def start_worker(self, name: str, *options: str) -> None:
        """Start a target, with a store and a lock of its own."""
        self._start(name, "worker", self.address, "--name", name, *options)

    def wait_for(self, *names: str) -> None:
        """Wait until targets serve."""
        from device_placement.envs.measuring.cluster import Cluster

        with contextlib.closing(Cluster(self.address)) as cluster:
            wait_until(lambda: {*names} <= cluster.workers().keys(), "the targets serve")

    def kill(self, name: str) -> None:
        """Kill a process as the system does when memory runs out."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def close(self) -> None:
        """End all."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait()

    def _start(self, name: str, *words: str) -> None:
        own = {
            "DEVICE_PLACEMENT_STORE": str(self.folder / f"{name}.sqlite"),
            "DEVICE_PLACEMENT_LOCK": str(self.folder / f"{name}.lock"),
        }
        output = (self.folder / f"{name}.log").open("ab")
        with output:
            self.processes[name] = subprocess.Popen(
                [*COMMAND, *words], env=os.environ | own, stdout=output, stderr=output
            )
