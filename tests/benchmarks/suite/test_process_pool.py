"""Processes that take tasks, and die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from device_placement.benchmarks.suite.process_pool import Lost, run_all
from places import HELPERS
from platforms import needs_signals
from waiting import wait_until

KILLED = "its process was killed by SIGKILL (the system does this when memory runs out)"


def work(task: str) -> tuple[str, int]:
    if task == "exits":
        os._exit(3)
    if task == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "is killed by a nameless signal":
        os.kill(os.getpid(), signal.SIGRTMIN + 6)
    if task == "hangs":
        time.sleep(600)
    if task == "asks for its mask":
        task = " ".join(one.name for one in signal.pthread_sigmask(signal.SIG_BLOCK, []))
    return task.upper(), os.getpid()


def test_one_process_takes_one_task_after_another() -> None:
    found = list(run_all(work, ["a", "b", "c"]))
    assert [(task, result[0]) for task, result in found] == [("a", "A"), ("b", "B"), ("c", "C")]
    assert len({result[1] for _, result in found} - {os.getpid()}) == 1


@needs_signals
def test_interrupts_do_not_reach_a_process_that_starts() -> None:
    """Its mask is that of its start; the one of this process is as it was."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    ((_, (name, _)),) = run_all(work, ["asks for its mask"])
    assert name == "SIGINT"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@needs_signals
def test_what_dies_or_hangs_costs_its_task_only() -> None:
    tasks = ["a", "exits", "b", "is killed", "hangs", "c"]
    found = dict(run_all(work, tasks, jobs=2, time_limit_s=2))
    assert {task: found[task][0] for task in "abc"} == {"a": "A", "b": "B", "c": "C"}
    assert found["exits"] == Lost("its process ended with status 3")
    assert found["is killed"] == Lost(KILLED)
    assert found["hangs"] == Lost("took longer than 2 s")


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no such signals here")
def test_some_signals_have_only_a_number() -> None:
    ((_, found),) = run_all(work, ["is killed by a nameless signal"])
    assert found == Lost(f"its process was killed by signal {signal.SIGRTMIN + 6}")


def test_nothing_is_left_running_when_it_is_given_up() -> None:
    results = run_all(work, ["a", "hangs"], jobs=2)
    assert next(results)[0] == "a"
    children = [one for one in psutil.Process().children() if works(one)]
    assert len(children) == 2
    results.close()  # type: ignore[attr-defined]
    assert not any(child.is_running() for child in children)


def works(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline())


@needs_signals
def test_one_that_dies_between_two_tasks_costs_the_next_one() -> None:
    results = run_all(work, ["a", "b", "c"])
    _, (_, pid) = next(results)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, "it lives on")
    assert next(results) == ("b", Lost(KILLED))
    assert next(results)[1][0] == "C"


def test_they_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "from test_process_pool import run_all, work\n"
        "if __name__ == '__main__':\n"
        "    for task, (_, pid) in run_all(work, ['a', 'b', 'hangs'], jobs=1):\n"
        "        print(pid, flush=True)\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(HELPERS), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.stdout.readline() == f"{pid}\n"  # now it hangs
        parent.kill()
        wait_until(lambda: not psutil.pid_exists(pid), "the worker lives on")
