"""Targets: the machines that measure a model, here this one."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import openvino as ov

from device_placement.envs.cores import cpu_affinity
from device_placement.envs.devices import (
    Device,
    discover_devices,
    half_devices,
    make_core,
    parse_devices,
)
from device_placement.envs.executors import AUTO, DATAFLOW, HETERO
from device_placement.envs.executors.choice import choose_executor
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.measuring.bench import Bench, BenchConfig, LocalBench
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.isolation import IsolatedBench
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.machine import describe_machine

P = ParamSpec("P")
T = TypeVar("T")
OnModel = Callable[Concatenate[ov.Core, ov.Model, P], T]


class GoneError(RuntimeError):
    """Error of a machine that is gone for longer than is waited for; another one may measure."""


class Target(Protocol):
    """Protocol of the machine, or the alike machines, that measure one model."""

    @property
    def devices(self) -> tuple[Device, ...]:
        """(num_devices,) of each machine."""

    @property
    def core(self) -> ov.Core:
        """A core in this process, which reads models; only of this machine it has the devices."""

    @property
    def num_machines(self) -> int:
        """How many machines measure, each one placement at a time."""

    def read_graph(self) -> ComputationGraph:
        """Return the model's graph; supported ops and fusion sets are those of the machine."""

    def turn(self, machine: int | None = None) -> AbstractContextManager[int]:
        """Wait for a machine, or a certain one, to be free; yield its number and hold it."""

    def call(self, machine: int, function: OnModel[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with a machine's core and model; see `turn` for holding it meanwhile.

        Args:
            machine: its number.
            function: of a module, as another process may import it.
            args: for it, in addition to core and model.
            kwargs: the same.
        """

    def make_bench(self, machine: int, bench: BenchConfig, config: MeasureConfig) -> Bench:
        """Return a bench on a machine."""

    def leave(self, machine: int, error: Exception) -> None:
        """Measure without a machine that is gone.

        Raises:
            DevicePlacementError: when no other one is left.
        """

    def describe_machine(self) -> dict[str, str]:
        """Return processor, cores, system and versions of the machine that measures."""

    def send_file(self, machine: int, path: str) -> str:
        """Return the path of a model file on a machine, to which it is copied if necessary."""

    def run_program(
        self, command: Sequence[str], folder: str, limit_s: float
    ) -> tuple[int, str, str] | None:
        """Run a Python program of a folder, while nothing else is measured there.

        Args:
            command: arguments of Python; the first file is relative to the folder.
            folder: here; another machine gets a copy.
            limit_s: seconds after which it is stopped.

        Returns:
            Its exit status, output and error output; None if it was stopped.
        """

    def close(self) -> None:
        """Release connections; a later call opens them again."""


def on_any(target: Target, action: Callable[[int], T]) -> T:
    """Return the result of an action on a machine that is free, or on another if that is gone.

    Raises:
        DevicePlacementError: when all are gone.
    """
    while True:
        with target.turn() as machine:
            try:
                return action(machine)
            except GoneError as error:
                target.leave(machine, error)


def auto_devices(model: Any, executor: str) -> tuple[Device, ...]:
    """Return this machine's devices, such that an executor can use them side by side.

    Args:
        model: the normalised model.
        executor: a name of `EXECUTORS`.
    """
    found = discover_devices()
    if executor == HETERO or len(cpu_affinity()) < 2:
        return found
    ways = [found, half_devices()]
    return next((way for way in ways if choose_executor(AUTO, model, way).name == DATAFLOW), found)


def devices_here(
    model: Any, devices: str | Sequence[str | Device], executor: str
) -> tuple[Device, ...]:
    """Return the devices of a list on this machine; ``auto`` are those of `auto_devices`."""
    return auto_devices(model, executor) if devices == "auto" else parse_devices(devices)


class LocalTarget:
    """This machine.

    Args:
        model: the normalised model.
        devices: of the problem.
        core: made by `make_core` for these devices; a new one if None.

    Raises:
        DeviceError: when a device is missing or can't be loaded.
    """

    num_machines = 1

    def __init__(
        self, model: ov.Model, devices: tuple[Device, ...], core: ov.Core | None = None
    ) -> None:
        self.devices = devices
        self.core = core or make_core(devices)
        self._model = model

    def read_graph(self) -> ComputationGraph:
        """Return the model's graph."""
        with machine_lock():  # it compiles the model
            return read_graph(self._model, self.devices, self.core)

    @contextlib.contextmanager
    def turn(self, machine: int | None = None) -> Iterator[int]:
        """Hold the lock of this machine."""
        with machine_lock():
            yield 0

    def call(self, machine: int, function: OnModel[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with core and model."""
        return function(self.core, self._model, *args, **kwargs)

    def make_bench(self, machine: int, bench: BenchConfig, config: MeasureConfig) -> Bench:
        """Return a bench in this process, or in one of its own."""
        return bench_here(self._model, self.core, bench, config)

    def leave(self, machine: int, error: Exception) -> None:
        """Raise the error: there is no other machine."""
        raise error

    def describe_machine(self) -> dict[str, str]:
        """Return processor, cores, system and versions of this machine."""
        return describe_machine()

    def send_file(self, machine: int, path: str) -> str:
        """Return the path."""
        return path

    def run_program(
        self, command: Sequence[str], folder: str, limit_s: float
    ) -> tuple[int, str, str] | None:
        """Run a program here."""
        return run_python(command, folder, limit_s)

    def close(self) -> None:
        """Do nothing; there is nothing to release."""


def bench_here(model: ov.Model, core: ov.Core, bench: BenchConfig, config: MeasureConfig) -> Bench:
    """Return a bench on this machine, isolated as the configuration says."""
    if not config.isolated:
        return LocalBench(model, core, bench)
    return IsolatedBench(model, bench, config.timeout_s, config.max_evaluations_per_worker)


def run_python(command: Sequence[str], folder: str, limit_s: float) -> tuple[int, str, str] | None:
    """Run a Python program while nothing else is measured; see `Target.run_program`."""
    with machine_lock(), contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, timeout=limit_s, cwd=folder
        )
        return done.returncode, done.stdout, done.stderr
    return None
