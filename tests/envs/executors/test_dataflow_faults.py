"""Faults of data-flow inferences: an error and no hang, and what comes next is right."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from dataflow_models import (
    APART,
    DEVICES,
    ONE,
    OTHER,
    core,
    expected_towers,
    expected_writing,
    placed,
    towers,
    writing,
)
from device_placement.envs import OpenVINOEvaluator, Placement, coarsen, read_graph
from device_placement.envs.executors import dataflow
from device_placement.envs.executors.dataflow import (
    DataflowError,
    DataflowModel,
    DeviceThreads,
    Region,
    RegionCache,
)
from device_placement.envs.executors.hetero import HeteroModel
from device_placement.envs.models.normalisation import normalise
from platforms import needs_fork, needs_signals
from problems import TWO_CPUS, measured
from processes import mixed
from waiting import PATIENCE_S, wait_until

SCRIPT = Path(__file__).parents[2] / "helpers" / "dataflow_process.py"
X = np.ones((1, 8), np.float32)
ROW, NO_ROW = np.array([1]), np.array([99])


def run_script(name: str) -> list[str]:
    """The lines that a process prints, which has to end by itself."""
    folders = os.pathsep.join([str(SCRIPT.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), name],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=os.environ | {"PYTHONPATH": folders},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def device_threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("device ")}


@pytest.fixture
def no_thread_is_left() -> Iterator[None]:
    before = device_threads()
    yield
    gc.collect()
    wait_until(lambda: device_threads() <= before, "a device's thread did not end")


def test_a_region_that_fails_is_named_and_the_next_inference_is_right() -> None:
    with placed(writing(), {"write": OTHER}) as compiled:
        for _ in range(3):
            with pytest.raises(DataflowError, match=r"region of 'write' and 0 further ops") as info:
                compiled.infer([NO_ROW])
            assert f"failed on {OTHER}: " in str(info.value)
            assert "ScatterUpdate" in str(info.value)
            assert isinstance(info.value.__cause__, RuntimeError)
            np.testing.assert_array_equal(compiled.infer([ROW])[0], expected_writing(1))


def test_regions_after_a_failed_one_do_not_run() -> None:
    with placed(writing(), {"write": OTHER}) as compiled:
        request = compiled.create_infer_request()
        request.set_inputs([NO_ROW])
        with pytest.raises(DataflowError):
            request.infer()
        assert [run.region for run in request.timeline] == [0, 1]
        request.wait()  # for nothing
        request.set_inputs([ROW])
        request.infer()
        assert [run.region for run in request.timeline] == [0, 1, 2]


def test_of_several_in_flight_only_those_fail_that_have_to() -> None:
    with placed(writing(), {"write": OTHER}, requests=3) as compiled:
        for _ in range(5):
            given = [0, 99, 2, 99, 1, 3]
            for rows in (given[:3], given[3:]):
                flights = [compiled.start_async([np.array([row])]) for row in rows]
                for row, flight in zip(rows, flights, strict=True):
                    if row == 99:
                        with pytest.raises(DataflowError, match="'write'"):
                            flight.wait()
                    else:
                        np.testing.assert_array_equal(flight.wait()[0], expected_writing(row))


def test_threads_that_share_a_model_get_their_own_errors() -> None:
    with placed(writing(), {"write": OTHER}, requests=2) as compiled:

        def run(row: int) -> None:
            for _ in range(20):
                if row == 99:
                    with pytest.raises(DataflowError, match="'write'"):
                        compiled.infer([np.array([row])])
                else:
                    np.testing.assert_array_equal(
                        compiled.infer([np.array([row])])[0], expected_writing(row)
                    )

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(run, row) for row in (0, 99, 2, 99)]:
                done.result()


def test_hetero_fails_alike() -> None:
    model = normalise(writing())
    coarse = coarsen(read_graph(model, DEVICES, core()), "none")
    placement = Placement.from_groups(coarse, DEVICES, [0] * coarse.num_groups)
    with placement.compile(model, "hetero", core()) as compiled:
        assert isinstance(compiled, HeteroModel)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="ScatterUpdate"):
                compiled.infer([NO_ROW])
            np.testing.assert_array_equal(compiled.infer([ROW])[0], expected_writing(1))
        flight = compiled.start_async([ROW])
        flight.wait()
        with pytest.raises(RuntimeError, match="waited for before"):
            flight.wait()
        for _ in range(3):
            compiled.start_async([ROW])  # nobody waits for it
        np.testing.assert_array_equal(compiled.infer([ROW])[0], expected_writing(1))


def test_an_inference_is_waited_for_once() -> None:
    with placed(towers(), APART) as compiled:
        flight = compiled.start_async([X])
        flight.wait()
        with pytest.raises(DataflowError, match="waited for before; start another one"):
            flight.wait()
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))


def test_inferences_that_nobody_waits_for_do_no_harm() -> None:
    with placed(towers(), APART) as compiled, placed(writing()) as failing:
        for _ in range(20):
            compiled.start_async([2 * X])
            failing.start_async([NO_ROW])
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))
        np.testing.assert_array_equal(failing.infer([ROW])[0], expected_writing(1))
        for _ in range(20):
            request = compiled.create_infer_request()
            request.set_inputs([X])
            request.start_async()
            del request
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))


def test_a_running_request_can_be_neither_changed_nor_started() -> None:
    with placed(towers(), APART) as compiled:
        request = compiled.create_infer_request()
        request.set_inputs([X])
        request.start_async()
        for change in (
            request.start_async,
            lambda: request.set_inputs([X]),
            lambda: request.set_input_tensor(0, ov.Tensor(X)),
        ):
            with pytest.raises(DataflowError, match="is running; wait for it"):
                change()
        request.wait()
        np.testing.assert_array_equal(request.output_tensors[0].data, expected_towers(X))


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_closed_model_says_so_every_time() -> None:
    compiled = placed(towers(), APART)
    compiled.close()
    compiled.close()
    for _ in range(3):  # with one request to be had
        with pytest.raises(DataflowError, match="were closed; compile the model again"):
            compiled.infer([X])
    other = placed(towers(), APART)
    request = other.create_infer_request()
    other.close()
    with pytest.raises(DataflowError, match="were closed"):
        request.infer()
    threads = DeviceThreads()
    threads.close()
    with pytest.raises(DataflowError, match="closed"):
        placed(towers(), APART, threads=threads)


@pytest.mark.usefixtures("no_thread_is_left")
def test_closing_in_the_middle_of_an_inference_ends_it() -> None:
    for device in (ONE, OTHER):
        threads = DeviceThreads()
        compiled = placed(towers(), APART, threads=threads)
        begin = threading.Event()
        threads[device].push(0, 0.0, lambda begin=begin: bool(begin.wait()))
        flight = compiled.start_async([X])
        closing = threading.Thread(target=threads.close)
        closing.start()
        wait_until(lambda: threads._closed, "it was not closed")  # noqa: B023
        begin.set()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
        # Its last region comes after the end of the first device's thread.
        with pytest.raises(DataflowError, match=r"region of 'sum' .* was closed"):
            flight.wait()


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_model_that_can_not_be_compiled_leaves_nothing() -> None:
    everything = ("left", "left2", "right", "right2", "sum")
    with pytest.raises(RuntimeError, match="NOWHERE"):
        DataflowModel(core(), towers(), [Region("NOWHERE", everything)])


def test_an_op_in_no_region_is_named() -> None:
    for held, missing in (
        (("left", "left2", "right2", "sum"), r"'right' \(Negative\)"),
        (("left", "left2", "right", "right2"), r"'sum' \(Add\)"),
    ):
        with pytest.raises(DataflowError, match=rf"op {missing} is in no region\. Give regions"):
            DataflowModel(core(), towers(), [Region(ONE, held)])


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_request_that_can_not_be_made_is_not_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    with placed(towers(), APART) as compiled:

        def fail(*_: Any) -> ov.Tensor:
            raise MemoryError("full")

        with monkeypatch.context() as patch:
            patch.setattr(dataflow, "make_tensor", fail)
            for _ in range(3):
                with pytest.raises(MemoryError, match="full"):
                    compiled.infer([X])
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))


@needs_fork
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_of_the_process_gets_an_error() -> None:
    lines = run_script("fork")
    assert len(lines) == 4
    assert all("forked from the one that compiled the model" in line for line in lines)


@needs_signals
def test_ctrl_c_ends_an_inference_and_the_next_one_is_right() -> None:
    assert run_script("interrupt") == ["interrupted True"]


@needs_signals
def test_ctrl_c_ends_compiling() -> None:
    assert run_script("interrupt_compile") == ["interrupted True"]


def test_a_process_ends_while_an_inference_runs() -> None:
    assert run_script("end") == ["ended"]


@pytest.mark.usefixtures("no_thread_is_left")
@pytest.mark.parametrize("fails", [False, True])
def test_a_dropped_model_is_freed_at_once(fails: bool) -> None:
    """Without the garbage collector, so there is no cycle."""
    before = device_threads()
    gc.collect()
    gc.disable()
    try:
        compiled = placed(writing(), {"write": OTHER}, requests=2)
        compiled.infer([ROW])
        if fails:
            with pytest.raises(DataflowError):
                compiled.infer([NO_ROW])
            compiled.start_async([NO_ROW])
            compiled.infer([ROW])
        alive = [weakref.ref(one) for one in (compiled, *compiled._pool._idle)]
        assert len(device_threads() - before) == 2
        del compiled
        wait_until(lambda: not any(one() for one in alive), "the model is still alive")
        wait_until(lambda: device_threads() <= before, "a device's thread did not end")
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_thread_is_left")
def test_a_model_that_is_dropped_in_the_middle_ends_its_threads() -> None:
    for _ in range(5):
        compiled = placed(towers(), APART)
        flight = compiled.start_async([X])
        del compiled, flight


def test_cores_that_can_not_be_had_are_an_error() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system binds no threads")
    for _ in range(2):
        with pytest.raises(DataflowError, match=rf"thread of {ONE} to the cores 4094: .* may use"):
            placed(towers(), cores={ONE: (4094,)})


def test_a_system_that_can_not_bind_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dataflow, "bind_thread", lambda cores: False)  # as on macOS
    with (
        caplog.at_level(logging.WARNING, "device_placement"),
        placed(towers(), cores={ONE: (0,)}) as compiled,
    ):
        np.testing.assert_array_equal(compiled.infer([X])[0], expected_towers(X))
    (text,) = [record.getMessage() for record in caplog.records]
    assert text == f"This system can't bind threads to cores; {ONE} runs on others than 0, too."


def evaluator(**options: Any) -> OpenVINOEvaluator:
    ready = measured()
    quick = {"max_samples": 6, "store": None, "confirmations": 0, "executor": "dataflow"}
    return OpenVINOEvaluator(
        ready.model, ready.coarse, TWO_CPUS, core=ready.core, **quick | options
    )


def test_a_killed_measuring_process_is_replaced(faulty: Callable[..., None]) -> None:
    with_faults = evaluator()
    faulty("kill", "time", "2,3,5")
    assert with_faults.evaluate(mixed(with_faults, 1)).valid
    lost = with_faults.evaluate(mixed(with_faults, 2))
    assert not lost.valid
    assert lost.transient
    assert "was killed by SIGKILL" in lost.error
    assert with_faults.evaluate(mixed(with_faults, 3)).valid
    again = with_faults.evaluate(mixed(with_faults, 4))  # lost once, and repeated
    assert again.valid
    with_faults.close()


@pytest.mark.usefixtures("no_thread_is_left")
def test_placements_share_compiled_regions_within_a_limit() -> None:
    here = evaluator(isolation="none", timing="plain", warmup=0, max_samples=1, verify=True)
    bench: Any = here.bench
    bench._regions = RegionCache(max_regions=5)
    assert here.evaluate([0, 0, 0, 0]).valid
    found = here.evaluate([0, 1, 0, 0])
    assert found.num_subgraphs == 4
    cache = bench._regions
    first = cache.num_misses
    assert here.evaluate([1, 1, 0, 0]).valid
    assert cache.num_hits > 0
    assert cache.num_misses - first < 4
    for number in range(16):
        assert here.evaluate(mixed(here, number)).valid
        assert len(cache) <= 5
    here.close()
    assert len(cache) == 0
    assert here.evaluate([0, 1, 1, 0]).valid  # with new threads
    here.close()
