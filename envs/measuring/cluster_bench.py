"""Bench on the targets of a cluster: another machine compiles, runs and times each placement."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import openvino as ov

from device_placement.envs.devices import Device, RestoringCore, add_extensions
from device_placement.envs.evaluation import Measurement
from device_placement.envs.executors.dataflow import RegionRun
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.measuring import on_target
from device_placement.envs.measuring.bench import Bench, BenchConfig, Entry, Job
from device_placement.envs.measuring.cluster import (
    BACK_S,
    Cluster,
    ClusterError,
    LostSchedulerError,
    LostTargetError,
    Worker,
    choose_targets,
    lasting,
)
from device_placement.envs.measuring.config import MeasureConfig, make_measure_config
from device_placement.envs.measuring.isolation import WorkerError
from device_placement.envs.measuring.on_target import Problem, UnknownSessionError
from device_placement.envs.measuring.target import GoneError, OnModel, P, T, on_any
from device_placement.envs.measuring.target_report import Report
from device_placement.envs.measuring.worker import MODEL_FILE
from device_placement.envs.models.loading import model_hash

R = TypeVar("R")
_log = logging.getLogger("device_placement")

ATTEMPTS = 6  # of one call whose target is lost again and again
PART_BYTES = 16 << 20  # of a file that is sent
REVIVE_S = 5.0  # between two looks whether a target that was gone is back


@dataclass
class Machine:
    """Target as this process sees it."""

    name: str
    report: Report
    worker: Worker
    gone: bool = False
    opened: int = 0  # how often the session was opened there


class ClusterTarget:
    """Alike targets of a cluster, which share the measurements of one model.

    Args:
        model: the normalised model; each target gets it once.
        devices: as `parse_devices` takes them, on the targets.
        config: has the address and the names of the targets.

    Raises:
        ClusterError: when the cluster can't be reached, lacks a target, or has other versions.
        DeviceError: when a device is missing there or can't be loaded.
    """

    def __init__(
        self, model: ov.Model, devices: str | Sequence[str | Device], config: MeasureConfig
    ) -> None:
        self.cluster = Cluster.of(config)
        self.core: ov.Core = add_extensions(RestoringCore())
        self._model = model
        self._key = uuid.uuid4().hex
        self._folder = Path(tempfile.mkdtemp(prefix="device-placement-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._free = threading.Condition()
        self._busy: set[int] = set()
        self._looked = 0.0
        asked = devices if isinstance(devices, str) else tuple(devices)
        try:
            chosen = lasting(self.cluster, lambda: choose_targets(self.cluster, config.target))
            self._machines = [Machine(one.name, report, one) for one, report in chosen.items()]
            self._problem = Problem(self._write(model), asked, config.executor)
            self.devices = on_any(self, self._open)
            # What `auto` found on the first is what all have, as they are alike.
            self._problem = replace(self._problem, devices=self.devices)
        except BaseException:
            self.close()
            raise

    @property
    def num_machines(self) -> int:
        """Number of targets."""
        return len(self._machines)

    def read_graph(self) -> ComputationGraph:
        """Return the model's graph; supported ops and fusion sets are the target's."""
        found = on_any(self, lambda machine: self.call(machine, on_target.graph_of, self.devices))
        here = tuple(op.get_friendly_name() for op in self._model.get_ordered_ops())
        assert found.op_names == here, "a model is read in the order in which it was written"
        return replace(found, model_hash=model_hash(self._model))

    @contextlib.contextmanager
    def turn(self, machine: int | None = None) -> Iterator[int]:
        """Wait for a target that this process does not use; prefer the first."""
        with self._free:
            while (found := self._find(machine)) is None:
                self._free.wait(REVIVE_S)
            self._busy.add(found)
        try:
            yield found
        finally:
            with self._free:
                self._busy.discard(found)
                self._free.notify_all()

    def _find(self, machine: int | None) -> int | None:
        """Return a free target; those that were gone are looked for now and then."""
        if any(one.gone for one in self._machines) and time.monotonic() > self._looked + REVIVE_S:
            self._looked = time.monotonic()
            with contextlib.suppress(LostSchedulerError):  # noticed where it is used
                here = self.cluster.workers()
                for one in self._machines:
                    one.gone = one.gone and one.name not in here
        several = range(len(self._machines)) if machine is None else [machine]
        usable = (one for one in several if one not in self._busy)
        return next((one for one in usable if not self._machines[one].gone), None)

    def leave(self, machine: int, error: Exception) -> None:
        """Measure without a target that is gone.

        Raises:
            ClusterError: when no other one is left.
        """
        with self._free:
            self._machines[machine].gone = True
            self._looked = time.monotonic()
            if any(not one.gone for one in self._machines):
                _log.warning("Measuring without %s.", error)
                return
        raise ClusterError(
            f"No target is left: {error}. All that was measured is kept; start `device-placement "
            f"worker {self.cluster.address}` there again, then resume the run."
        )

    def call(self, machine: int, function: OnModel[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function with core and model on a target."""
        found: T = self.measure(machine, on_target.call, function, args, kwargs)
        return found

    def make_bench(self, machine: int, bench: BenchConfig, config: MeasureConfig) -> Bench:
        """Return a bench on a target."""
        # Nothing is stored there, and nothing measured on yet another machine.
        plain = make_measure_config(
            config, on="", target="", store=None, tls_ca_file="", tls_cert="", tls_key=""
        )
        return ClusterBench(self, machine, bench, plain)

    def describe_machine(self) -> dict[str, str]:
        """Return processor, cores, system and versions of the first target, and all names."""
        names = ", ".join(one.name for one in self._machines)
        return {**self._machines[0].report.machine, "targets": names}

    def send_file(self, machine: int, path: str) -> str:
        """Return the path of a model file on a target, to which it is copied once.

        Raises:
            WorkerError: when this OpenVINO can't read it.
        """
        found = Path(path)
        if found.suffix == ".xml":
            files = {MODEL_FILE: found}
            weights = found.with_suffix(".bin")
            if weights.is_file():
                files[Path(MODEL_FILE).with_suffix(".bin").name] = weights
            key = on_target.key_of(files)
        else:  # other formats may consist of any files
            try:
                key = self._write(self.core.read_model(found))
            except RuntimeError as error:
                raise WorkerError(f"Can't read {path!r}: {error}") from error
            files = _files_in(self._folder / key)
        self._guarded(machine, lambda worker: self._send(worker, key, files))
        folder = self._guarded(machine, lambda worker: self.cluster.run(worker, on_target.sent_to))
        return f"{folder}/{key}/{MODEL_FILE}"

    def run_program(
        self, command: Sequence[str], folder: str, limit_s: float
    ) -> tuple[int, str, str] | None:
        """Run a program on the first target, in a copy of its folder."""
        files = _files_in(Path(folder))
        key = on_target.key_of(files)

        def run(worker: Worker) -> tuple[int, str, str] | None:
            self._send(worker, key, files)
            return self.cluster.measure(worker, on_target.run_sent_program, key, command, limit_s)

        return on_any(self, lambda machine: self._guarded(machine, run))

    def close(self) -> None:
        """End the session on each target, and close the connection."""
        for one in getattr(self, "_machines", ()):
            with contextlib.suppress(Exception):  # the cluster may be gone
                self.cluster.run(one.worker, on_target.close_session, self._key)
        self.cluster.close()

    def measure(self, machine: int, function: Callable[..., R], *args: Any) -> R:
        """Call a function of `on_target` in this session, which is opened again if necessary.

        Raises:
            GoneError: when the target is lost, and does not come back.
            WorkerError: when it is lost again and again.
        """

        def call(worker: Worker) -> R:
            return self.cluster.measure(worker, function, self._key, *args)

        for _ in range(ATTEMPTS):
            with contextlib.suppress(UnknownSessionError):
                return self._guarded(machine, call)
            self._open(machine)
        raise WorkerError(f"The target {self._machines[machine].name!r} forgets its sessions.")

    def _open(self, machine: int) -> tuple[Device, ...]:
        """Open the session on a target, and return its devices."""

        def opened(worker: Worker) -> tuple[Device, ...]:
            key = self._problem.files
            self._send(worker, key, _files_in(self._folder / key))
            return self.cluster.measure(worker, on_target.open_session, self._key, self._problem)

        devices = self._guarded(machine, opened)
        self._machines[machine].opened += 1
        return devices

    def opened(self, machine: int) -> int:
        """Return how often the session was opened on a target, which loses its benches."""
        return self._machines[machine].opened

    def _guarded(self, machine: int, call: Callable[[Worker], R]) -> R:
        """Return the result of a call, which is repeated while target or scheduler are lost."""
        one, lost = self._machines[machine], ""
        for _ in range(ATTEMPTS):
            try:
                return call(one.worker)
            except LostTargetError as error:
                lost = str(error)
                _log.info("Trying again: %s", error)
            except LostSchedulerError as error:
                lost = str(error)
                self.cluster.restore()
            found = lasting(self.cluster, lambda: self.cluster.wait_for(one.name))
            if found is None:
                raise GoneError(f"the target {one.name!r}, lost for more than {BACK_S:g} s")
            one.worker = found
        raise WorkerError(f"Lost {ATTEMPTS} times: {lost}")

    def _write(self, model: ov.Model) -> str:
        """Write a model to this process's folder, and return the key of its files."""
        draft = Path(tempfile.mkdtemp(dir=self._folder))
        ov.serialize(model, draft / MODEL_FILE)
        key = on_target.key_of(_files_in(draft))
        if not (folder := self._folder / key).is_dir():
            draft.rename(folder)
        return key

    def _send(self, worker: Worker, key: str, files: dict[str, Path]) -> None:
        """Send files to a target, unless it has them."""
        if self.cluster.run(worker, on_target.has_files, key):
            return
        for name, path in files.items():
            with path.open("rb") as file:
                first = True
                while (part := file.read(PART_BYTES)) or first:
                    where = key, self._key, name
                    self.cluster.run(worker, on_target.put_part, *where, part, first)
                    first = False
        self.cluster.run(worker, on_target.end_files, key, self._key, list(files))


def _files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a folder, by their relative names."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


class ClusterBench:
    """Bench on one of several targets.

    Args:
        target: the targets.
        machine: number of the one.
        bench: devices, ops and protocol.
        config: how the target isolates its measurements.
    """

    def __init__(
        self, target: ClusterTarget, machine: int, bench: BenchConfig, config: MeasureConfig
    ) -> None:
        self._target, self._machine = target, machine
        self._bench, self._config = bench, config
        self._key = uuid.uuid4().hex
        self._opened = 0  # in which of the target's sessions

    def time_reference(self, op_devices: bytes) -> Measurement:
        """Time a placement thoroughly, alone."""
        found: Measurement = self._call("time_reference", op_devices)
        return found

    def measure(self, job: Job) -> Measurement:
        """Compile a placement, check its outputs if asked, and time it."""
        found: Measurement = self._call("measure", job)
        return found

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Compile all, then take one sample of each in turn, round after round."""
        there = [self._there(entry) for entry in entries]
        found: list[Measurement] = self._call("compare", there, rounds, warmup, max_seconds)
        return found

    def repeat(self, op_devices: bytes) -> tuple[float, float]:
        """Run a placement again and again; return how its outputs differ."""
        found: tuple[float, float] = self._call("repeat", op_devices)
        return found

    def timeline(self, op_devices: bytes) -> list[RegionRun]:
        """Return when each region of a placement ran in a typical run."""
        found: list[RegionRun] = self._call("timeline", op_devices)
        return found

    def close(self) -> None:
        """End the measuring process there; the next measurement starts another one."""
        # The session's end, which follows, ends it.

    def _there(self, entry: Entry) -> Entry:
        """Return a program to compare, with the path that its file has on the target."""
        if not entry.path:
            return entry
        return replace(entry, path=self._target.send_file(self._machine, entry.path))

    def _call(self, method: str, *args: Any) -> Any:
        target, machine = self._target, self._machine
        for _ in range(ATTEMPTS):
            if self._opened != target.opened(machine):
                target.measure(machine, on_target.open_bench, self._key, self._bench, self._config)
                self._opened = target.opened(machine)
            with contextlib.suppress(on_target.UnknownBenchError):
                return target.measure(machine, on_target.call_bench, self._key, method, args)
            self._opened = 0
        raise WorkerError("The target forgets its benches.")
