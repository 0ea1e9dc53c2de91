"""Process pool in which a task that crashes loses only its own result."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from device_placement.envs.measuring.exit_codes import describe_exit
from device_placement.envs.measuring.parent import watch_process

Task = TypeVar("Task")
_Process = tuple[Any, "Connection[Any, Any]"]  # and its connection


# Windows waits for 63 handles at most, one of which is for Ctrl-C.
MAX_PROCESSES = 62 if sys.platform == "win32" else sys.maxsize


@dataclass(frozen=True)
class Lost:
    """Reason why a task has no result."""

    reason: str


@dataclass
class _Worker(Generic[Task]):
    process: Any
    connection: Connection[Any, Any]
    task: Task
    limit_s: float
    started: bool = False  # whether the process is up
    deadline: float = math.inf

    def start(self) -> None:
        """Start the time limit of the task."""
        self.started, self.deadline = True, time.monotonic() + self.limit_s


def run_all(
    function: Callable[[Task], Any],
    tasks: Sequence[Task],
    jobs: int = 1,
    time_limit_s: float | None = None,
) -> Iterator[tuple[Task, Any]]:
    """Call a function for each task in processes, and yield each result as it comes.

    A process runs one task after another. When it dies, or takes too long and is killed, the
    result is `Lost` and a new process replaces it. All end with the calling process.

    Args:
        function: of a module, as the processes import it; it raises nothing.
        tasks: in the order they are started; these and the results are pickled.
        jobs: processes at a time; `MAX_PROCESSES` if it is more.
        time_limit_s: limit of one task, once a process runs it.

    Yields:
        The task and its result, in the order the tasks end.
    """
    waiting, idle, busy = deque(tasks), list[_Process](), list[_Worker[Task]]()
    limit_s = math.inf if time_limit_s is None else time_limit_s
    try:
        while waiting or busy:
            while waiting and len(busy) < min(jobs, MAX_PROCESSES):
                started = bool(idle)
                process, connection = idle.pop() if idle else _start(function)
                with contextlib.suppress(ConnectionError):  # it has died, as is noticed below
                    connection.send(waiting[0])
                busy.append(_Worker(process, connection, waiting.popleft(), limit_s))
                if started:
                    busy[-1].start()
            for worker in _ended(busy):
                busy.remove(worker)
                result = _receive(worker)
                if isinstance(result, Lost):
                    worker.process.join()
                else:
                    idle.append((worker.process, worker.connection))
                yield worker.task, result
    finally:
        for process in [*(one.process for one in busy), *(one for one, _ in idle)]:
            process.kill()
            process.join()


class Processes(Generic[Task]):
    """Processes that run one task after another, for threads that wait for one task each.

    Args:
        function: as for `run_all`.
    """

    def __init__(self, function: Callable[[Task], Any]) -> None:
        self._function = function
        self._idle = list[_Process]()

    def run(self, task: Task, time_limit_s: float | None = None) -> Any:
        """Return a task's result, or `Lost`, as `run_all` does."""
        started = True
        try:
            process, connection = self._idle.pop()  # threads may do so at once
        except IndexError:
            started = False
            process, connection = _start(self._function)
        limit_s = math.inf if time_limit_s is None else time_limit_s
        worker = _Worker(process, connection, task, limit_s)
        kept = False
        try:
            with contextlib.suppress(ConnectionError):  # it has died, as is noticed below
                connection.send(task)
            if started:
                worker.start()
            while not _ended([worker]):
                pass
            result = _receive(worker)
            kept = not isinstance(result, Lost)
        finally:
            if kept:
                self._idle.append((process, connection))
            else:
                process.kill()
                process.join()
        return result

    def close(self) -> None:
        """End the processes that run no task."""
        while self._idle:
            process, _ = self._idle.pop()
            process.kill()
            process.join()


def _ended(busy: Sequence[_Worker[Task]]) -> list[_Worker[Task]]:
    """Wait for, and return, workers that have a result, have died or took too long."""
    left_s = min(worker.deadline for worker in busy) - time.monotonic()
    ready = wait([one.connection for one in busy], None if left_s > 1e6 else max(0, left_s))
    now = time.monotonic()
    return [
        one
        for one in busy
        if (one.connection in ready and not _just_started(one)) or now >= one.deadline
    ]


def _just_started(worker: _Worker[Any]) -> bool:
    """Return whether a worker only reports that its process is up."""
    if worker.started:
        return False
    try:
        worker.connection.recv()
    except (EOFError, ConnectionError):  # it has died, as is noticed where its result is received
        return False
    worker.start()
    return True


def _start(function: Callable[[Any], Any]) -> _Process:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, function))
    with _without_interrupts():
        process.start()
    there.close()  # so that this end notices when the process dies
    return process, here


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that Ctrl-C never reaches, also while they start; the caller handles it.

    Windows has no such mask, so there they may print a traceback if they have hardly started.
    """
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # which would change the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _receive(worker: _Worker[Any]) -> Any:
    if not worker.connection.poll():
        worker.process.kill()
        return Lost(f"took longer than {worker.limit_s:g} s")
    try:
        return worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        return Lost(f"its process {describe_exit(worker.process.exitcode)}")


def _work(connection: Connection[Any, Any], function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    watch_process(parent.pid, lambda: os._exit(1))  # a fork of it may keep the sentinel open
    connection.send(None)
    while True:
        connection.send(function(connection.recv()))


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
