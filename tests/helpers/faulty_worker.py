"""The real measuring process on a plugin that misbehaves while it compiles or runs a model.

``python faulty_worker.py COUNTER FAULT STAGE JOBS``: before each placement that is measured the
number in the file COUNTER goes up by one, over all workers; when it is one of JOBS (numbers
separated by commas, ``every:N``, or ``twice:N`` for the next one too), FAULT happens while that
placement is in STAGE.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from device_placement.envs.measuring import worker
from device_placement.envs.measuring.bench import LocalBench
from device_placement.envs.measuring.program import Program

FOREVER_S = 100_000
DAWDLE_S = 0.05
HOARD: list[bytearray] = []


def kill_soon() -> threading.Timer:
    """As the system does when memory runs out: in the middle, without a word."""
    end = threading.Timer(0.002, os.kill, (os.getpid(), signal.SIGKILL))
    end.start()
    return end


def abort() -> None:
    os.write(2, b"plugin: assertion failed in reorder.cpp\n")
    os.abort()


def hang() -> None:
    """As a plugin that waits for a device."""
    ctypes.CDLL(None).sleep(FOREVER_S)


def hang_with_the_interpreter() -> None:
    """The same, without giving the interpreter back: no Python thread runs any more."""
    ctypes.PyDLL(None).sleep(FOREVER_S)


def starve() -> None:
    """Leave hardly any memory."""
    import resource  # Windows has no such module

    used = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (used, used))
    for size in (1 << 20, 1 << 15):  # what the allocator has kept is to be had without a limit
        with contextlib.suppress(MemoryError):
            while True:
                HOARD.append(bytearray(size))


def chatter() -> None:
    """As a plugin that prints."""
    os.write(1, b"compiling kernels ...\n" * 100)


def dawdle() -> None:
    """As a plugin that waits for a device, but not for ever."""
    time.sleep(DAWDLE_S)


def slowed(run: Callable[[int], float]) -> Callable[[int], float]:
    def dawdling(runs: int) -> float:
        start = time.perf_counter()
        dawdle()
        run(runs)
        return (time.perf_counter() - start) / runs

    return dawdling


FAULTS: dict[str, Callable[[], threading.Timer | None]] = {
    "kill": kill_soon,
    "abort": abort,
    "hang": hang,
    "hang_with_the_interpreter": hang_with_the_interpreter,
    "starve": starve,
    "chatter": chatter,
    "dawdle": dawdle,
}


class FaultyBench(LocalBench):
    """Compiles and times for real, with a fault at some of the placements."""

    def measure(self, job: Any) -> Any:
        counter, fault, stage, jobs = Path(sys.argv[1]), *sys.argv[2:]
        number = int(counter.read_text()) + 1
        counter.write_text(str(number))
        kind, _, period = jobs.partition(":")
        if kind == "every":
            due = number % int(period) == 0
        elif kind == "twice":
            due = number >= int(period) and number % int(period) < 2
        else:
            due = str(number) in jobs.split(",")
        if stage == "both":
            stage = ("compile", "time")[number // 4 % 2]
        self._fault = FAULTS[fault] if due else lambda: None
        self._stage = stage
        return super().measure(job)

    def _build(self, entry: Any) -> Any:
        due = getattr(self, "_stage", "") == "compile" and self._reference is not None
        return self._with_fault(super()._build, entry) if due else super()._build(entry)

    def _time(self, program: Program, *arguments: Any) -> Any:
        if self._stage != "time":
            return super()._time(program, *arguments)
        if self._fault is dawdle:
            program = dataclasses.replace(program, run=slowed(program.run))
        return self._with_fault(super()._time, program, *arguments)

    def _with_fault(self, function: Callable[..., Any], *arguments: Any) -> Any:
        end = self._fault()
        result = function(*arguments)
        if end is not None:
            end.join()  # the end comes within this stage, however late the system lets it
        return result


if __name__ == "__main__":
    worker.LocalBench = FaultyBench  # type: ignore[misc]
    worker.main()
