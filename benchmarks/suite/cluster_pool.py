"""Pool of a cluster's workers: each run of a benchmark is a task, whose files come back with it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import queue
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from device_placement.benchmarks.suite.process_pool import Lost, Processes
from device_placement.benchmarks.suite.results import Key, RunRow
from device_placement.benchmarks.suite.suites import MEASURED
from device_placement.benchmarks.suite.task import (
    Task,
    packed_path,
    reason_path,
    record_path,
    run_task,
    write_record,
)
from device_placement.envs.files import replaced
from device_placement.envs.measuring.cluster import (
    BACK_S,
    POLL_S,
    SAME,
    Cluster,
    ClusterError,
    LostSchedulerError,
    LostTargetError,
    Worker,
    check_versions,
    choose_targets,
    lasting,
)
from device_placement.envs.measuring.config import MeasureConfig, make_measure_config
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.on_target import sent_files
from device_placement.envs.measuring.target_report import CLOCK

MOST_BESIDE = 4 << 20  # bytes of an own algorithm's modules that travel with it


@dataclass(frozen=True)
class Parcel:
    """Task with the files that it needs, as it travels."""

    task: Task
    limit_s: float | None
    versions: dict[str, str]  # of the packages that must be equal
    traces: dict[str, bytes]  # what an earlier run left, by name
    inputs: dict[str, bytes] = field(default_factory=dict)  # files by path


def run_parcel(parcel: Parcel) -> tuple[RunRow | Lost, dict[str, bytes]]:
    """Run a task in a worker, and return its row and its files by name.

    Raises:
        ClusterError: when this worker has other versions.
    """
    here = describe_machine()
    check_versions(here["system"], here, parcel.versions)
    with tempfile.TemporaryDirectory(prefix="device-placement-") as folder:
        trace = Path(folder) / parcel.task.trace.name
        for name, content in parcel.traces.items():
            trace.with_name(name).write_bytes(content)
        task = dataclasses.replace(_unpacked(parcel), trace=trace)
        row = _processes.run(task, parcel.limit_s)
        files = {path.name: path.read_bytes() for path in files_of(trace) if path.is_file()}
    return row, files


_processes: Processes[Task] = Processes(run_task)  # of this worker


def end_processes() -> None:
    """End this worker's processes that run no task."""
    _processes.close()


def _unpacked(parcel: Parcel) -> Task:
    """Return the task with the paths of its input files on this worker."""
    if not parcel.inputs:
        return parcel.task
    digest = hashlib.sha256(repr(sorted(parcel.inputs.items())).encode()).hexdigest()
    place = sent_files() / f"inputs-{digest[:40]}"  # equal for equal ones, as a problem is its path
    if not place.is_dir():
        draft = Path(tempfile.mkdtemp(dir=sent_files()))
        for path, content in parcel.inputs.items():
            (draft / Path(path).name).write_bytes(content)
        with contextlib.suppress(OSError):  # another thread was quicker
            draft.rename(place)

    def there(path: str) -> str:
        return str(place / Path(path).name) if path in parcel.inputs else path

    task, problem = parcel.task, parcel.task.problem
    problem = dataclasses.replace(problem, model=there(problem.model), inputs=there(problem.inputs))
    module, colon, function = task.placer.rpartition(":")
    placer = f"{there(module)}{colon}{function}"
    return dataclasses.replace(task, problem=problem, placer=placer)


def packed(task: Task, limit_s: float | None) -> Parcel:
    """Return a task with the files that it needs."""
    there = make_measure_config(
        task.measuring, on="", target="", tls_ca_file="", tls_cert="", tls_key=""
    )
    here = describe_machine()
    paths = [Path(one) for one in (task.problem.model, task.problem.inputs) if Path(one).is_file()]
    module = Path(task.placer.rpartition(":")[0])
    if module.suffix == ".py" and module.is_file():
        beside = [one for one in sorted(module.parent.glob("*.py")) if one != module]
        small = sum(one.stat().st_size for one in beside) <= MOST_BESIDE
        paths += [module, *(beside if small else ())]
    return Parcel(
        dataclasses.replace(task, measuring=there),
        limit_s,
        {name: here[name] for name in SAME},
        {path.name: path.read_bytes() for path in files_of(task.trace) if path.is_file()},
        {str(path): path.read_bytes() for path in paths},
    )


def files_of(trace: Path) -> list[Path]:
    """Return the files that a run may have beside its trace, and that."""
    return [trace, packed_path(trace), record_path(trace), reason_path(trace)]


def put_back(task: Task, row: RunRow | Lost, files: dict[str, bytes]) -> RunRow:
    """Write the files of a run to where a run on this machine leaves them; return its row."""
    task.trace.parent.mkdir(parents=True, exist_ok=True)
    for path in files_of(task.trace):
        if path.name in files:
            with replaced(path) as draft:
                draft.write_bytes(files[path.name])
        else:
            path.unlink(missing_ok=True)
    if isinstance(row, Lost):
        return task.failed(row.reason)
    if row.placer != task.placer:  # an own algorithm, whose path was another one there
        row = dataclasses.replace(row, placer=task.placer)
        if record_path(task.trace).is_file():
            write_record(task.trace, row)
    return row


class ClusterPool:
    """Workers of a cluster that run tasks.

    Args:
        config: has the cluster and its targets.
        measures: whether tasks measure; then only alike targets, or those that are named, run them.

    Raises:
        ClusterError: when the cluster can't be reached, lacks workers, or has other versions.
    """

    def __init__(self, config: MeasureConfig, measures: bool) -> None:
        self._cluster = Cluster.of(config)
        self._named = bool(config.target)
        try:
            workers = [*lasting(self._cluster, self._cluster.workers).values()]
            if measures or config.target:
                targets = choose_targets(self._cluster, config.target)
                workers = list(targets) if config.target else workers
                reports = {one.name: report for one, report in targets.items()}
            if not workers:
                raise ClusterError(
                    f"The cluster at {self._cluster.address} has no worker; start "
                    f"`device-placement worker {self._cluster.address}`."
                )
            if not (measures or config.target):
                reports = self._cluster.reports(workers)
        except BaseException:
            self._cluster.close()
            raise
        self._names = [one.name for one in workers]
        self.machine: dict[str, str] | None = {
            **next(iter(reports.values())).machine,
            "targets": ", ".join(reports),
        }
        self.jobs = sum(one.threads for one in workers)

    def run(self, tasks: Sequence[Task], limit_s: float | None) -> Iterator[tuple[Task, RunRow]]:
        """Run tasks, and yield each with its row when it ends; its files are then in place.

        Raises:
            ClusterError: when scheduler or workers are gone for longer than is waited for.
        """
        left = {task.key: task for task in tasks}
        while left:
            try:
                for task, row in _Round(self._cluster, left, limit_s, self._chosen()).rows():
                    del left[task.key]
                    yield task, row
            except LostSchedulerError:
                self._cluster.restore()

    def _chosen(self) -> tuple[str, ...]:
        """Return the names of the workers that may run tasks; empty: all."""
        return tuple(self._names) if self._named else ()

    def close(self) -> None:
        """End idle processes of the workers, and the connection."""
        with contextlib.suppress(ClusterError, LostSchedulerError):
            for worker in self._cluster.workers().values():
                with contextlib.suppress(LostTargetError):
                    self._cluster.run(worker, end_processes)
        self._cluster.close()


class _Round:
    """Tasks on a scheduler, until they end or it is lost."""

    def __init__(
        self,
        cluster: Cluster,
        left: dict[Key, Task],
        limit_s: float | None,
        names: tuple[str, ...],
    ) -> None:
        self._cluster, self._limit_s, self._names = cluster, limit_s, names
        self._tasks = dict(left)
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._futures: dict[Key, Any] = {}
        self._keys: dict[str, Key] = {}
        self._addresses: list[str] = []
        self._alone_since = 0.0

    def rows(self) -> Iterator[tuple[Task, RunRow]]:
        """Yield each task with its row, when it ends."""
        self._look()
        for number, key in enumerate(self._tasks):
            self._submit(key, -number)
        try:
            while self._futures:
                try:
                    future: Any = self._ended.get(timeout=POLL_S)
                except queue.Empty:
                    self._look()
                    continue
                key = self._keys[future.key]
                if key in self._futures and future is self._futures[key]:
                    row = self._row_of(key, future)
                    del self._futures[key]
                    future.release()
                    yield self._tasks[key], row
        finally:
            for future in self._futures.values():
                with contextlib.suppress(Exception):  # the scheduler may be gone
                    future.cancel()

    def _submit(self, key: Key, priority: int) -> None:
        task, options = self._tasks[key], dict[str, Any]()
        if task.problem.evaluator == MEASURED:
            options["resources"] = {CLOCK: 1}
        if self._names:
            options["workers"] = self._addresses
        parcel = packed(task, self._limit_s)
        future = self._cluster.submit(run_parcel, parcel, priority=priority, **options)
        self._futures[key], self._keys[future.key] = future, key
        future.add_done_callback(self._ended.put)

    def _row_of(self, key: Key, future: Any) -> RunRow:
        """Return the row of a task that has ended, after writing its files."""
        from distributed.client import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            row, files = future.result()
        except CancelledError as error:
            raise LostSchedulerError("the scheduler was lost") from error
        except KilledWorker:
            row, files = Lost("its worker was lost again and again"), {}
        return put_back(self._tasks[key], row, files)

    def _look(self) -> None:
        """Check that scheduler and workers still exist, and follow named ones that were replaced.

        Raises:
            ClusterError: when no worker is left for too long.
            LostSchedulerError: when the scheduler is lost.
        """
        workers = self._cluster.workers()
        usable: list[Worker] = [
            one for name, one in workers.items() if not self._names or name in self._names
        ]
        if usable:
            self._alone_since = 0.0
        elif not self._alone_since:
            self._alone_since = time.monotonic()
        elif time.monotonic() > self._alone_since + BACK_S:
            raise ClusterError(
                f"No worker is left at {self._cluster.address}. All runs that have ended are kept; "
                "start workers again, then resume."
            )
        addresses = sorted(one.address for one in usable)
        if self._names and addresses and addresses != self._addresses:
            self._addresses = addresses
            for number, (key, future) in enumerate([*self._futures.items()]):
                if not future.done():
                    del self._futures[key]
                    future.cancel()
                    self._submit(key, -number)
