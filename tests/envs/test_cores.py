"""Cores of the processor: lists of them, and threads of devices that stay on their own."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphs  # noqa: F401  # no deadlines
from dataflow_models import APART, F32, ONE, OTHER, expected_towers, slow, towers
from device_placement.envs import Placement, coarsen, make_core, parse_devices, read_graph
from device_placement.envs.cores import cpu_affinity, format_cores, parse_cores
from device_placement.envs.executors.dataflow import DataflowModel, DeviceThreads, bind_thread
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.models.normalisation import normalise

TASKS = Path("/proc/self/task")
on_linux = pytest.mark.skipif(not TASKS.exists(), reason="only Linux shows the masks of threads")
two_cores = pytest.mark.skipif(len(cpu_affinity()) < 2, reason="this needs two cores")
X = np.ones((1, 8), np.float32)


@given(st.sets(st.integers(0, 300), min_size=1, max_size=40))
def test_lists_of_cores_are_read_and_written_back(cores: set[int]) -> None:
    assert parse_cores(format_cores(cores)) == tuple(sorted(cores))


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", (0,)), ("3+1", (1, 3)), ("2-4+3+0", (0, 2, 3, 4)), ("7-7", (7,)), ("007", (7,))],
)
def test_cores_are_sorted_and_distinct(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize(
    "text", ["", "a", "1,2", "1-", "-1", "1+", "1 - 2", "1--2", "+1", "3-1", "1.5", "0x1", "123456"]
)
def test_what_is_no_list_of_cores_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no list of cores such as 0-3\+8|ends before it"):
        parse_cores(text)


def masks() -> dict[int, set[int]]:
    """The cores that each thread of this process may use, by the system's number of the thread."""
    found = {}
    for task in TASKS.iterdir():
        try:
            lines = (task / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        listed = dict(line.split(":\t") for line in lines if ":\t" in line)["Cpus_allowed_list"]
        found[int(task.name)] = set(parse_cores(listed.replace(",", "+")))
    return found


def owning(*owners: tuple[int, ...]) -> tuple[Any, ...]:
    names = (ONE, OTHER)[: len(owners)]
    return parse_devices(
        [
            f"{name}:{F32};CORES={format_cores(cores)}"
            for name, cores in zip(names, owners, strict=True)
        ]
    )


def compiled_on(devices: tuple[Any, ...], width: int = 8) -> DataflowModel:
    model = towers(width)
    names = dict.fromkeys([op.get_friendly_name() for op in model.get_ordered_ops()], ONE)
    regions = plan_regions(model, names | (APART if len(devices) > 1 else {}))
    cores = {device.name: device.cores for device in devices}
    return DataflowModel(make_core(devices), model, regions, cores=cores)


@on_linux
@two_cores
def test_a_devices_threads_stay_on_its_cores_and_all_others_where_they_were() -> None:
    first, second = cpu_affinity()[:2]
    before, own = masks(), cpu_affinity()
    with compiled_on(owning((first,), (second,)), width=512) as compiled:
        x = np.ones((1, 512), np.float32)
        for _ in range(5):
            np.testing.assert_array_equal(compiled.infer([x])[0], expected_towers(x))
        started = {task: cores for task, cores in masks().items() if task not in before}
        for name, core in ((ONE, first), (OTHER, second)):
            (thread,) = [one for one in threading.enumerate() if one.name == f"device {name}"]
            assert thread.native_id is not None
            assert started[thread.native_id] == {core}
        # Those that the plugin started from them are bound, too.
        assert all(cores in ({first}, {second}) for cores in started.values())
        assert cpu_affinity() == own
        assert all(cores == before[task] for task, cores in masks().items() if task in before)


@on_linux
@two_cores
def test_a_device_of_two_cores_has_two_threads_on_them() -> None:
    pair = tuple(cpu_affinity()[:2])
    before = masks()
    devices = owning(pair)
    with compiled_on(devices, width=4096) as compiled:
        x = np.ones((1, 4096), np.float32)
        np.testing.assert_array_equal(compiled.infer([x])[0], expected_towers(x))
        started = [cores for task, cores in masks().items() if task not in before]
        assert started
        assert all(cores == set(pair) for cores in started)


@on_linux
def test_a_device_of_one_core_computes_in_its_own_thread() -> None:
    devices, model = owning((cpu_affinity()[0],)), slow()
    names = dict.fromkeys([op.get_friendly_name() for op in model.get_ordered_ops()], ONE)
    with DataflowModel(
        make_core(devices), model, plan_regions(model, names), cores={ONE: devices[0].cores}
    ) as compiled:
        request = compiled.create_infer_request()
        request.set_inputs([np.ones((256, 256), np.float32)])
        request.infer()
        request.take_core_share()
        before_s = time.process_time()
        request.infer()
        used_s = time.process_time() - before_s
        # Of work on two threads it would be half at most.
        assert sum(run.cpu_s for run in request.timeline) > 0.6 * used_s
        assert request.take_core_share() > 0
        assert request.take_core_share() == 1  # nothing ran since


def test_devices_that_share_all_cores_have_no_share() -> None:
    devices = parse_devices(f"{ONE}:{F32}")
    with compiled_on(devices) as compiled:
        request = compiled.create_infer_request()
        request.set_inputs([X])
        request.infer()
        assert request.take_core_share() == 1


@on_linux
def test_binding_a_thread_leaves_the_others() -> None:
    core, own = cpu_affinity()[-1], cpu_affinity()
    with DeviceThreads({ONE: (core,)}) as threads:
        assert threads[ONE].submit(lambda: os.sched_getaffinity(0)).result() == {core}
        assert threads[OTHER].submit(lambda: os.sched_getaffinity(0)).result() == set(own)
        assert threads.has_one_core(ONE)
        assert not threads.has_one_core(OTHER)
        assert threads[OTHER].submit(lambda: bind_thread([core])).result()
    assert cpu_affinity() == own


def test_a_placement_file_brings_the_cores_of_its_devices(tmp_path: Path) -> None:
    core = cpu_affinity()[0]
    devices = owning((core,))
    model = normalise(towers())
    coarse = coarsen(read_graph(model, devices))
    assignment = [0] * coarse.num_groups
    placement = Placement.from_groups(coarse, devices, assignment, "dataflow")
    placement.save(tmp_path / "placement.json")
    loaded = Placement.load(tmp_path / "placement.json")
    assert loaded == placement
    assert loaded.devices[0].cores == (core,)
    with loaded.compile(model) as compiled:
        assert isinstance(compiled, DataflowModel)
        assert compiled.threads.has_one_core(ONE)
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))
