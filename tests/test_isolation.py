"""The measuring process: what it survives, what it says, and that nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from problems import TWO_CPUS, measured
from stable_baselines3.common.vec_env import SubprocVecEnv

from device_placement.envs import DevicePlacementEnv, OpenVINOEvaluator, make_evaluator
from device_placement.envs.execution import isolation
from device_placement.envs.execution.isolation import COMMAND
from device_placement.envs.execution.process import Worker, WorkerError

QUICK = {"max_samples": 6, "store": None}
FAULTY = str(Path(__file__).with_name("faulty_worker.py"))
PATIENCE_S = 60


def isolated(**options: Any) -> OpenVINOEvaluator:
    ready = measured()
    return OpenVINOEvaluator(
        ready.model, ready.coarse, TWO_CPUS, core=ready.core, **QUICK | options
    )


def mixed(evaluator: OpenVINOEvaluator, number: int) -> list[int]:
    """The placement of a number, which is no single."""
    return [(number >> group) & 1 for group in range(evaluator.coarse.num_groups)]


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


OTHERS: set[int] = set()  # measuring processes of other tests


@pytest.fixture(autouse=True)
def ignore_others() -> None:
    OTHERS.clear()
    OTHERS.update(one.pid for one in workers())


def workers() -> list[psutil.Process]:
    """The measuring processes among the descendants of this one, and every zombie."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            zombie = one.status() == psutil.STATUS_ZOMBIE
            if zombie or "worker" in " ".join(one.cmdline()):
                found.append(one)
    return [one for one in found if one.pid not in OTHERS]


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes workers misbehave: the kind of fault, the stage and the placements."""

    def install(fault: str, stage: str, jobs: str) -> None:
        counter = tmp_path / "counter"
        counter.write_text("0")
        command = (sys.executable, FAULTY, str(counter), fault, stage, jobs)
        monkeypatch.setattr(isolation, "COMMAND", command)

    return install


def test_a_process_of_its_own_measures_and_is_gone_afterwards() -> None:
    evaluator = isolated(verify=True)
    first = evaluator.evaluate(mixed(evaluator, 1))
    assert first.valid
    assert first.output_error < 0.1
    assert first.num_subgraphs == measured().evaluate(mixed(evaluator, 1)).num_subgraphs
    assert len(workers()) == 1
    evaluator.close()
    assert not workers()
    assert evaluator.evaluate(mixed(evaluator, 2)).valid  # another one is started
    del evaluator
    wait_until(lambda: not workers(), "the worker outlived its evaluator")


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


SCRIPT = """
    import sys, time
    from device_placement.envs import make_evaluator
    evaluator = make_evaluator("diamond", {devices!r}, store=None, timeout_s=30)
    groups = evaluator.coarse.num_groups
    for number in range(1, 2 ** groups - 1):
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid, found.error
        print(evaluator.bench._worker.pid, flush=True)
    {end}
"""


def script(end: str = "") -> str:
    return textwrap.dedent(SCRIPT).format(devices=TWO_CPUS, end=end)


def test_it_works_from_a_script_on_standard_input(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-"],
        input=script(),
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    (pid,) = set(done.stdout.split())
    assert not psutil.pid_exists(int(pid))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", script("time.sleep(100)")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert psutil.pid_exists(pid)
    process.send_signal(number)
    process.wait(PATIENCE_S)
    process.stdout.close()
    wait_until(lambda: not psutil.pid_exists(pid), "the worker outlived its parent")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_the_parent_is_killed_while_it_hands_the_model_over(
    tmp_path: Path,
) -> None:
    code = """
        import os, signal
        import openvino as ov
        from device_placement.envs import make_evaluator
        evaluator = make_evaluator("diamond", {devices!r}, store=None)
        real = ov.serialize
        def serialize_and_die(model, path):
            real(model, path)
            print(os.path.exists(path), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        ov.serialize = serialize_and_die
        evaluator.evaluate([0] * evaluator.coarse.num_groups)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code).format(devices=TWO_CPUS)],
        stdout=subprocess.PIPE,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == [b"True"]
    wait_until(lambda: not list(tmp_path.iterdir()), "the model's folder was left")


def test_it_works_in_the_daemonic_children_of_a_vector_environment() -> None:
    def make() -> DevicePlacementEnv:
        return DevicePlacementEnv("diamond", TWO_CPUS, horizon=3, **QUICK)

    envs = SubprocVecEnv([make, make])
    envs.reset()
    for _ in range(3):
        _, _, _, infos = envs.step([envs.action_space.sample() for _ in range(2)])
        assert all(info["valid"] for info in infos)
    envs.close()
    wait_until(lambda: not workers(), "a worker outlived its environment")


def test_a_fork_starts_a_worker_of_its_own() -> None:
    evaluator = isolated()
    assert evaluator.evaluate(mixed(evaluator, 1)).valid
    code = os.fork()
    if code == 0:  # the child
        valid = evaluator.evaluate(mixed(evaluator, 2)).valid
        evaluator.close()
        os._exit(0 if valid else 1)
    assert os.waitpid(code, 0)[1] == 0
    assert evaluator.evaluate(mixed(evaluator, 3)).valid  # ours was left alone
    evaluator.close()


def test_an_environment_ends_its_workers_when_closed() -> None:
    env = DevicePlacementEnv("diamond", TWO_CPUS, **QUICK)
    env.reset(seed=0)
    assert len(workers()) == 1
    env.close()
    assert not workers()


def test_an_evaluator_given_to_an_environment_is_left_running() -> None:
    evaluator = make_evaluator("diamond", TWO_CPUS, **QUICK)
    assert isinstance(evaluator, OpenVINOEvaluator)
    env = DevicePlacementEnv(evaluator=evaluator)
    env.reset(seed=0)
    env.close()
    assert len(workers()) == 1
    evaluator.close()


def test_the_worker_ends_with_its_input() -> None:
    worker = Worker(COMMAND)
    Path(worker.call("make_folder", limit_s=PATIENCE_S))
    process = psutil.Process(worker.pid)
    worker.close()
    assert not process.is_running()
