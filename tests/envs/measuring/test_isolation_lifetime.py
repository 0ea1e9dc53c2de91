"""The measuring process: where it works, and that nothing of it is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from device_placement.envs import DevicePlacementEnv, OpenVINOEvaluator, make_evaluator
from device_placement.envs.measuring.isolation import COMMAND, Worker
from device_placement.envs.measuring.parent import is_alive
from platforms import needs_fork, needs_signals
from problems import TWO_CPUS, measured
from processes import QUICK, isolated, mixed, workers
from waiting import PATIENCE_S, wait_until

pytestmark = pytest.mark.usefixtures("ignore_other_workers")


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


SCRIPT = """
    import sys, time
    from device_placement.envs import make_evaluator
    evaluator = make_evaluator("diamond", {devices!r}, **{options!r})
    groups = evaluator.coarse.num_groups
    for number in range(1, 5):
        found = evaluator.evaluate([(number >> group) & 1 for group in range(groups)])
        assert found.valid, found.error
        print(evaluator.bench._worker.pid, flush=True)
    {end}
"""


def script(end: str = "") -> str:
    return textwrap.dedent(SCRIPT).format(devices=TWO_CPUS, options=QUICK, end=end)


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


@needs_signals
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM"])
def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", script("time.sleep(1000)")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert psutil.pid_exists(pid)
    process.send_signal(getattr(signal, name))
    process.wait(PATIENCE_S)
    process.stdout.close()
    wait_until(lambda: not psutil.pid_exists(pid), "the worker outlived its parent")
    assert list(tmp_path.iterdir()) == []


@needs_fork
def test_a_fork_that_outlives_its_killed_parent_keeps_no_worker(tmp_path: Path) -> None:
    end = """
        import os, signal
        child = os.fork()
        if child == 0:
            time.sleep(1000)
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", script(textwrap.dedent(end))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(5)]
    worker, fork = psutil.Process(pids[0]), psutil.Process(pids[-1])
    try:
        process.wait(PATIENCE_S)
        wait_until(lambda: not is_alive(worker), "a fork kept the worker")
        assert is_alive(fork)
    finally:
        fork.kill()
        process.stdout.close()
    assert list(tmp_path.iterdir()) == []


@needs_signals
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

    if "forkserver" in multiprocessing.get_all_start_methods():
        multiprocessing.set_forkserver_preload([SubprocVecEnv.__module__])  # once for both
    envs = SubprocVecEnv([make, make])
    envs.reset()
    for _ in range(3):
        _, _, _, infos = envs.step([envs.action_space.sample() for _ in range(2)])
        assert all(info["valid"] for info in infos)
    envs.close()
    wait_until(lambda: not workers(), "a worker outlived its environment")


@needs_fork
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
