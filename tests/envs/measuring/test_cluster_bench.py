"""Measuring on a target: all that depends on the machine is the target's, and faults stay there."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import gymnasium as gym
import numpy as np
import pytest

from clusters import in_process
from device_placement.agents.placers.baselines import hetero_choice
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.envs import ClusterError, DeviceError, OpenVINOEvaluator, make_evaluator
from device_placement.envs.measuring import cluster as connection
from device_placement.envs.measuring import on_target
from device_placement.envs.measuring.cluster import (
    Cluster,
    Tls,
    check_versions,
    choose_targets,
    full_address,
)
from device_placement.envs.measuring.cluster_bench import ClusterTarget
from device_placement.envs.measuring.compare import compare, contenders
from device_placement.envs.measuring.target import LocalTarget
from device_placement.envs.measuring.target_report import CLOCK, Report
from device_placement.envs.measuring.validation import rounding_error
from device_placement.envs.models.loading import load_model, save_model
from processes import QUICK, mixed

DEVICES = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with in_process() as found:
        yield found


def on(address: str, **options: Any) -> OpenVINOEvaluator:
    return make_evaluator("diamond", DEVICES, on=address, **QUICK | options)


def test_the_problem_is_the_one_that_the_target_sees(address: str, store_path: Path) -> None:
    kept = {"store": str(store_path)}
    here = make_evaluator("diamond", DEVICES, **QUICK | kept)
    with contextlib.closing(on(address, **kept)) as there:
        assert isinstance(there.target, ClusterTarget)
        assert isinstance(here.target, LocalTarget)
        assert there.devices == here.devices
        graphs = [one.coarse.graph for one in (here, there)]
        assert graphs[0].model_hash == graphs[1].model_hash
        assert graphs[0].fusion_sets == graphs[1].fusion_sets
        assert np.array_equal(graphs[0].supported, graphs[1].supported)
        found = there.evaluate(mixed(there, 5))
        assert found.valid
        assert not found.cached
        assert there.target.describe_machine()["targets"] == "a"
    # The key of the store is that of the machine that measured, which is this one.
    again = here.evaluate(mixed(here, 5))
    assert (again.cached, again.time_s) == (True, found.time_s)
    here.close()


def test_auto_are_the_devices_of_the_target(address: str) -> None:
    with contextlib.closing(make_evaluator("diamond", "auto", on=address, **QUICK)) as there:
        assert there.devices == make_evaluator("diamond", "auto", **QUICK).devices
    with pytest.raises(DeviceError, match=r"Unknown device 'NPU\.7'; this machine has"):
        make_evaluator("diamond", "CPU,NPU.7", on=address, **QUICK)


def unbound() -> int:
    raise UnboundLocalError("a fault of its own")


def test_a_wait_that_dask_breaks_off_goes_on(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in dask/distributed#8514, which otherwise takes a timeout at the wrong moment."""
    result, broken = distributed.Future.result, []

    def breaks_off_once(self: Any, timeout: Any = None) -> Any:
        if not broken:
            broken.append(timeout)
            raise UnboundLocalError("result")
        return result(self, timeout)

    monkeypatch.setattr(distributed.Future, "result", breaks_off_once)
    with contextlib.closing(Cluster(address)) as cluster:
        (worker,) = cluster.workers().values()
        assert cluster.measure(worker, abs, -3) == 3
        assert broken
        with pytest.raises(UnboundLocalError, match="a fault of its own"):
            cluster.measure(worker, unbound)


def test_a_model_travels_once(address: str) -> None:
    with contextlib.closing(on(address)) as first:
        files = {path: path.stat().st_mtime_ns for path in on_target.sent_files().rglob("model.*")}
        assert files
        with contextlib.closing(on(address)) as second:
            assert second.evaluate([0] * second.coarse.num_groups).valid
        assert first.evaluate([0] * first.coarse.num_groups).valid  # its session is opened again
    found = {path: path.stat().st_mtime_ns for path in on_target.sent_files().rglob("model.*")}
    assert found == files


def test_what_needs_the_devices_runs_there(address: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.xml"
    save_model(load_model("diamond"), path)
    with contextlib.closing(make_evaluator(str(path), DEVICES, on=address, **QUICK)) as there:
        found = compare(there, contenders(there, {}), rounds=2)
        assert {name for name, one in found.items() if not one.valid} == set()
        assert "file as it is, on CPU" in found
        assert there.call(rounding_error, "CPU_F32", there.samples) == 0.0
        assert hetero_choice(there, SearchSpace.of(there)).shape == (there.coarse.num_groups,)
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "say.py").write_text("import sys; print(sys.argv[1:])")
        said = there.target.run_program(["-I", "say.py", "5"], str(tmp_path / "folder"), 60.0)
        assert said is not None
        assert said[:2] == (0, f"['5']{os.linesep}")


def test_an_environment_measures_there(address: str) -> None:
    env = gym.make(
        "device_placement.envs:DevicePlacement-v0", model="diamond", devices=DEVICES, horizon=3,
        on=address, target="a", **QUICK,
    )  # fmt: skip
    env.reset(seed=0)
    _, reward, *_, info = env.step(env.action_space.sample())
    assert info["valid"]
    assert reward == pytest.approx(-1e3 * info["time_s"])
    env.close()


def test_a_lost_measuring_process_is_never_stored(
    address: str, faulty: Callable[..., None], store_path: Path
) -> None:
    faulty("kill", "compile", "1,2")
    with contextlib.closing(on(address, store=str(store_path))) as there:
        lost = there.evaluate(mixed(there, 6))
        assert lost.transient
        assert "measuring process" in lost.error
        assert there.evaluate(mixed(there, 5)).valid
    with contextlib.closing(sqlite3.connect(store_path)) as store:
        ((rows,),) = store.execute("SELECT COUNT(*) FROM measurements")
    assert rows == 1


def test_what_a_cluster_refuses(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ClusterError, match="Unknown target 'b'; allowed: a"):
        on(address, target="b")
    with pytest.raises(ValueError, match="Got target='a' without a cluster"):
        make_evaluator("diamond", DEVICES, target="a")
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    with pytest.raises(ClusterError, match=r"Can't reach a scheduler at tcp://127\.0\.0\.1:9"):
        on("127.0.0.1:9")
    with pytest.raises(ClusterError, match=r"tls_cert='none\.pem', which is no file"):
        on(address, tls_ca_file=__file__, tls_cert="none.pem", tls_key="none.pem")
    with in_process(clock=0) as other, contextlib.closing(Cluster(other)) as cluster:
        with pytest.raises(ClusterError, match="has no target; start `device-placement worker"):
            choose_targets(cluster)
        assert not cluster.workers()["a"].clock
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ClusterError, match=r"not installed; run pip install 'device-placement\[cl"):
        on(address)


def test_a_worker_of_another_version_is_refused_with_both(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = on_target.report()
    machine = {**usual.machine, "openvino": "2024.0.0"}
    other = dataclasses.replace(usual, machine=machine)
    monkeypatch.setattr(on_target, "report", lambda: other)
    here = usual.machine["openvino"]
    message = f"The worker 'a' has openvino 2024.0.0, but here it is {here}; times and results"
    with pytest.raises(ClusterError, match=message.replace(".", r"\.")):
        on(address)
    check_versions("a", {"openvino": "7"}, {"openvino": "7"})


def test_unlike_targets_are_refused_unless_named() -> None:
    with in_process(("a", "b")) as two, contextlib.closing(Cluster(two)) as cluster:
        assert [one.name for one in choose_targets(cluster)] == ["a", "b"]
        usual = on_target.report()

        def reports(workers: Any) -> dict[str, Report]:
            """As if b had a GPU."""
            names = [one.name for one in workers]
            more = dataclasses.replace(usual, devices={**usual.devices, "GPU": "a card"})
            return {name: more if name == "b" else usual for name in names}

        cluster.reports = reports  # type: ignore[method-assign]
        with pytest.raises(ClusterError, match=r"not alike, .* b: .*GPU \(a card\)\. Name one"):
            choose_targets(cluster)
        assert [one.name for one in choose_targets(cluster, "b")] == ["b"]


def test_addresses(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text('{"address": "tls://1.2.3.4:5"}')
    assert full_address(str(file), tls=False) == "tls://1.2.3.4:5"
    assert full_address("here:1", tls=True) == "tls://here:1"
    file.write_text("[]")
    with pytest.raises(ClusterError, match="Can't read the scheduler file"):
        full_address(str(file), tls=False)
    names = [str(tmp_path / name) for name in ("ca", "cert", "key")]
    for name in names:
        Path(name).write_text("")
    security = Tls(*names).security()
    assert security.require_encryption
    assert security.tls_worker_cert == names[1]
    assert CLOCK == "clock"  # workers that others start are to offer it
