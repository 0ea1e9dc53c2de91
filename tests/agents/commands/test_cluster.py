"""The commands `cluster` and `worker`: targets in processes of their own, and how they are lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from clusters import Commands
from device_placement.agents.cli import main
from device_placement.agents.commands.config import ClusterConfig, WorkerConfig
from device_placement.agents.commands.worker import start_worker
from device_placement.envs import (
    ClusterError,
    DevicePlacementError,
    MeasuredVectorEnv,
    OpenVINOEvaluator,
    make_evaluator,
)
from device_placement.envs.measuring import cluster as connection
from device_placement.envs.measuring import on_target
from device_placement.envs.measuring.cluster import Cluster
from platforms import needs_signals
from processes import QUICK, mixed
from waiting import wait_until

DEVICES = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
pytestmark = needs_signals


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with contextlib.closing(Commands(tmp_path_factory.mktemp("cluster"))) as found:
        found.start_scheduler()
        for name in ("a", "b"):
            found.start_worker(name)
        found.wait_for("a", "b")
        yield found


def process_of(address: str, name: str) -> psutil.Process:
    """The process that measures for a target, not its nanny."""
    with contextlib.closing(Cluster(address)) as cluster:
        return psutil.Process(cluster.run(cluster.workers()[name], os.getpid))


def on(commands: Commands, **options: Any) -> OpenVINOEvaluator:
    return make_evaluator("diamond", DEVICES, on=commands.address, **QUICK | options)


def beside(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_it_listens_on_this_machine_only(commands: Commands) -> None:
    parents = [psutil.Process(one.pid) for one in commands.processes.values()]
    several = [one for parent in parents for one in (parent, *parent.children(recursive=True))]
    listening = {
        place.laddr.ip
        for one in several
        for place in one.net_connections("tcp")
        if place.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    assert "Whoever reaches it can run code" in (commands.folder / "scheduler.log").read_text()
    assert re.search("openvino +20", (commands.folder / "a.log").read_text())
    with pytest.raises(DevicePlacementError, match="on another machine, which has to reach this"):
        start_worker(WorkerConfig(address="10.1.2.3:8786"))
    assert ClusterConfig().host == "127.0.0.1"


def test_a_search_on_a_named_target(
    commands: Commands, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = [
        "diamond",
        "--devices",
        DEVICES,
        "--placer",
        "random",
        "--budget",
        "4",
        "--rounds",
        "2",
    ]
    place = ["--on", commands.address, "--target", "b", "--out", str(out)]
    assert main(["search", *words, *place]) == 0
    assert json.loads((out / "result.json").read_text())["machine"]["targets"] == "b"
    capsys.readouterr()
    # A file may not name a scheduler, which could run code here; and machines are not mixed.
    assert main(["search", "--resume", "--out", str(out)]) == 2
    assert f"It sets --on {commands.address}" in capsys.readouterr().err
    assert main(["search", "--resume", *place, "--budget", "5"]) == 0
    assert len((out / "evaluations.jsonl").read_text().splitlines()) == 5


def test_alike_targets_share_the_steps_of_copies(commands: Commands) -> None:
    envs = MeasuredVectorEnv(
        4, model="diamond", devices=DEVICES, on=commands.address, horizon=2, **QUICK
    )
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(3):  # the second one ends the episodes, the third one begins others
        envs.step(envs.action_space.sample())
    evaluator: Any = envs.envs[0].unwrapped.evaluator  # type: ignore[attr-defined]
    assert evaluator.target.num_machines == 2
    benches = []
    for one in evaluator.target.cluster.workers().values():
        benches.append(evaluator.target.cluster.run(one, lambda: len(on_target.started_benches())))
    assert min(benches) >= 1
    envs.close()


def test_a_killed_target_loses_and_doubles_nothing(commands: Commands, store_path: Path) -> None:
    with contextlib.closing(on(commands, target="a", store=str(store_path))) as evaluator:
        assert evaluator.evaluate([0] * evaluator.coarse.num_groups).valid
        before = process_of(commands.address, "a")
        killer = beside(before.kill)
        found = [evaluator.evaluate(mixed(evaluator, number)) for number in (5, 6, 9)]
        killer.join()
        assert [(one.valid, one.transient) for one in found] == [(True, False)] * 3
    commands.wait_for("a")
    assert process_of(commands.address, "a") != before
    with contextlib.closing(sqlite3.connect(store_path)) as store:
        ((rows,),) = store.execute("SELECT COUNT(*) FROM measurements")
    assert rows == 3


def test_a_stopped_target_goes_on(commands: Commands) -> None:
    with contextlib.closing(on(commands, target="b")) as evaluator:
        assert evaluator.evaluate([0] * evaluator.coarse.num_groups).valid
        process, found = process_of(commands.address, "b"), list[Any]()
        process.send_signal(signal.SIGSTOP)
        thread = beside(lambda: found.append(evaluator.evaluate(mixed(evaluator, 5))))
        thread.join(1.5 * connection.POLL_S)  # so it is looked for at least once
        assert thread.is_alive()
        process.send_signal(signal.SIGCONT)
        thread.join()
        assert found[0].valid


def test_a_scheduler_that_comes_back_and_one_that_does_not(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(on(commands, target="a")) as evaluator:
        assert evaluator.evaluate([0] * evaluator.coarse.num_groups).valid
        commands.kill("scheduler")
        (commands.folder / "scheduler.json").unlink()
        again = beside(commands.start_scheduler)
        assert evaluator.evaluate(mixed(evaluator, 5)).valid
        again.join()
        assert "is lost; waiting up to" in caplog.text
        commands.kill("scheduler")
        monkeypatch.setattr(connection, "BACK_S", 0.1)
        with pytest.raises(ClusterError, match=r"is gone\. All that was measured is kept; start"):
            evaluator.evaluate(mixed(evaluator, 6))
    log = commands.folder / "a.log"
    wait_until(lambda: log.read_text().count("is away; waiting") == 2, "the target waits for it")
