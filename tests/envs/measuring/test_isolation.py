"""The measuring process: what it survives, and what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import psutil
import pytest

from device_placement.envs.measuring import isolation
from device_placement.envs.measuring.isolation import Worker, WorkerError
from processes import isolated, mixed, workers
from waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.usefixtures("ignore_other_workers")


def test_both_isolations_find_the_same_placements_invalid_and_outputs_equal() -> None:
    here, there = isolated(isolation="none", verify=True), isolated(verify=True)
    for number in (0, 3, 5):
        one, other = here.evaluate(mixed(here, number)), there.evaluate(mixed(there, number))
        assert one.output_error == other.output_error
        assert one.num_subgraphs == other.num_subgraphs
    assert here.evaluate([9] * 4).error == there.evaluate([9] * 4).error
    there.close()


def test_a_crash_is_an_invalid_evaluation_and_the_next_one_is_measured(
    faulty: Callable[..., None],
) -> None:
    evaluator, number = isolated(), 1
    for fault, stage, error in (
        ("kill", "compile", r"was killed by SIGKILL \(.*memory.*\) while compiling"),
        ("kill", "time", r"was killed by SIGKILL \(.*memory.*\) while timing"),
        ("abort", "compile", r"SIGABRT while compiling\. It said: plugin: assertion failed"),
        ("abort", "time", r"SIGABRT while timing"),
        ("starve", "compile", r"ran out of memory"),
    ):
        faulty(fault, stage, "2,3")  # of the workers that are started next
        assert evaluator.evaluate(mixed(evaluator, number)).valid
        lost = evaluator.evaluate(mixed(evaluator, number + 1))
        assert not lost.valid
        assert lost.transient
        with pytest.raises(WorkerError, match=error):
            raise WorkerError(lost.error)
        again = evaluator.evaluate(mixed(evaluator, number + 1))
        assert again.error == lost.error  # is not tried a third time
        number += 2
    assert evaluator.evaluate(mixed(evaluator, number)).valid
    evaluator.close()


def test_a_placement_whose_worker_is_lost_is_measured_again(faulty: Callable[..., None]) -> None:
    for stage in ("compile", "time"):
        faulty("abort", stage, "1")
        evaluator = isolated()
        found = evaluator.evaluate(mixed(evaluator, 1))
        assert found.valid
        assert not found.transient
        evaluator.close()


def test_a_plugin_that_never_returns_is_cut_off(faulty: Callable[..., None]) -> None:
    evaluator, number = isolated(timeout_s=PATIENCE_S), 1
    assert isinstance(evaluator.bench, isolation.IsolatedBench)
    for fault, stage, doing, limit_s in (
        ("hang_with_the_interpreter", "compile", "compiling", 1.0),
        ("hang", "time", "timing", 3.0),
    ):
        faulty(fault, stage, "2,3")  # of the workers that are started next
        evaluator.bench._timeout_s = PATIENCE_S
        assert evaluator.evaluate(mixed(evaluator, number)).valid
        evaluator.bench._timeout_s = limit_s
        lost = evaluator.evaluate(mixed(evaluator, number + 1))
        assert not lost.valid
        assert lost.transient
        assert "Timed out: the measuring process took more than" in lost.error
        assert f"{limit_s:g} s and was killed while {doing}." in lost.error
        number += 2
    evaluator.bench._timeout_s = PATIENCE_S
    assert evaluator.evaluate(mixed(evaluator, number)).valid
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
