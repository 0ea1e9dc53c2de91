"""The measuring process: what it survives, and what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psutil
import pytest

from device_placement.envs.execution import isolation
from device_placement.envs.execution.process import Worker, WorkerError
from processes import PATIENCE_S, isolated, mixed, wait_until, workers

pytestmark = pytest.mark.usefixtures("ignore_other_workers")


def test_both_isolations_find_the_same_placements_invalid_and_outputs_equal() -> None:
    here, there = isolated(isolation="none", verify=True), isolated(verify=True)
    for number in (0, 3, 5):
        one, other = here.evaluate(mixed(here, number)), there.evaluate(mixed(there, number))
        assert one.output_error == other.output_error
        assert one.num_subgraphs == other.num_subgraphs
    assert here.evaluate([9] * 4).error == there.evaluate([9] * 4).error
    there.close()


@pytest.mark.parametrize(
    ("fault", "stage", "error"),
    [
        ("kill", "compile", r"was killed by SIGKILL \(.*memory.*\) while compiling"),
        ("kill", "time", r"was killed by SIGKILL \(.*memory.*\) while timing"),
        ("abort", "compile", r"SIGABRT while compiling\. It said: plugin: assertion failed"),
        ("abort", "time", r"SIGABRT while timing"),
        ("starve", "compile", r"ran out of memory"),
    ],
)
def test_a_crash_is_an_invalid_evaluation_and_the_next_one_is_measured(
    faulty: Callable[..., None], fault: str, stage: str, error: str
) -> None:
    faulty(fault, stage, "2")
    evaluator = isolated()
    found = [evaluator.evaluate(mixed(evaluator, number)) for number in (1, 2, 3)]
    assert [one.valid for one in found] == [True, False, True]
    with pytest.raises(WorkerError, match=error):
        raise WorkerError(found[1].error)
    assert evaluator.evaluate(mixed(evaluator, 2)).error == found[1].error  # is not tried again
    evaluator.close()


@pytest.mark.parametrize("fault", ["hang", "hang_with_the_interpreter"])
@pytest.mark.parametrize("stage", ["compile", "time"])
def test_a_plugin_that_never_returns_is_cut_off(
    faulty: Callable[..., None], fault: str, stage: str
) -> None:
    faulty(fault, stage, "2")
    evaluator = isolated(timeout_s=2.0)
    found = [evaluator.evaluate(mixed(evaluator, number)) for number in (1, 2, 3)]
    assert [one.valid for one in found] == [True, False, True]
    assert "Timed out: the measuring process took more than 2 s" in found[1].error
    assert {"compile": "compiling", "time": "timing"}[stage] in found[1].error
    evaluator.close()


def test_what_a_plugin_prints_does_not_disturb(
    faulty: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    faulty("chatter", "compile", "1,2")
    evaluator = isolated()
    assert all(evaluator.evaluate(mixed(evaluator, number)).valid for number in (1, 2))
    evaluator.close()
    assert "kernels" not in capfd.readouterr().out


def test_a_worker_is_replaced_when_it_has_served_long_enough() -> None:
    evaluator = isolated(max_evaluations_per_worker=2)
    pids = []
    for number in range(1, 5):
        assert evaluator.evaluate(mixed(evaluator, number)).valid
        assert isinstance(evaluator.bench, isolation.IsolatedBench)
        worker = evaluator.bench._worker
        assert worker is not None
        pids.append(worker.pid)
    # The first one also timed the reference.
    assert [one == other for one, other in pairwise(pids)] == [False, True, False]
    evaluator.close()


def test_a_worker_that_died_in_between_is_replaced() -> None:
    evaluator = isolated()
    assert evaluator.evaluate(mixed(evaluator, 1)).valid
    (worker,) = workers()
    worker.kill()
    wait_until(lambda: worker.status() == psutil.STATUS_ZOMBIE, "the worker did not die")
    assert evaluator.evaluate(mixed(evaluator, 2)).valid
    evaluator.close()


def test_a_reference_is_tried_again_when_the_worker_is_lost(
    faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = isolation.IsolatedBench.time_reference

    def lost_at_first(self: Any, op_devices: bytes) -> Any:
        calls.append(op_devices)
        if len(calls) == 1:
            raise WorkerError("lost")
        return real(self, op_devices)

    monkeypatch.setattr(isolation.IsolatedBench, "time_reference", lost_at_first)
    evaluator = isolated()
    assert evaluator.evaluate([0] * evaluator.coarse.num_groups).valid
    assert len(calls) == 2
    evaluator.close()


def test_a_command_that_can_not_be_started_or_says_nothing_is_told() -> None:
    with pytest.raises(WorkerError, match="can't be started"):
        Worker(["/nowhere/python"])
    worker = Worker([sys.executable, "-c", "import sys; sys.exit('no such module')"])
    with pytest.raises(WorkerError, match=r"status 1 while starting\. It said: no such module"):
        worker.call("make_folder", limit_s=PATIENCE_S)
    assert not worker.alive
