"""A data-flow inference in a process that is forked or interrupted in the middle.

python dataflow_process.py fork|interrupt|interrupt_compile|end
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np

from dataflow_models import APART, ONE, OTHER, core, expected_towers, placed, slow, towers
from device_placement.envs.executors.dataflow import (
    DataflowError,
    DataflowModel,
    DeviceThreads,
    Region,
)

X = np.ones((1, 8), np.float32)


def check(found: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(found[0], expected_towers(X))


def fork() -> None:
    """Use compiled models in a fork, one of them while its only request runs."""
    warnings.simplefilter("ignore", DeprecationWarning)  # that threads are running
    idle, threads = placed(towers(), APART), DeviceThreads()
    check(idle.infer([X]))
    busy = placed(towers(), APART, threads=threads)
    release = threading.Event()
    threads[ONE].push(0, 0.0, lambda: bool(release.wait()))
    flight = busy.start_async([X])
    pid = os.fork()
    if not pid:
        for compiled in (idle, busy):
            for _ in range(2):
                try:
                    compiled.infer([X])
                except DataflowError as error:
                    print(error, flush=True)
        idle.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    release.set()
    check(flight.wait())
    check(idle.infer([X]))


def interrupt() -> None:
    """Ctrl-C while a region runs and others are to come."""
    steps = 10
    compiled = placed(slow(steps), {f"step{step}": OTHER for step in range(1, steps, 2)})
    x = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    np.testing.assert_array_equal(compiled.infer([x])[0], x)
    ran: list[int] = []
    request = compiled.create_infer_request()
    request.set_inputs([x])
    original = request._run

    def run(number: int) -> None:
        ran.append(number)
        if number == steps // 2:
            os.kill(os.getpid(), signal.SIGINT)
        original(number)

    request._run = run  # type: ignore[method-assign]
    try:
        request.infer()
    except KeyboardInterrupt:
        print("interrupted", not request.is_running, flush=True)
    request._run = original  # type: ignore[method-assign]
    before = len(ran)
    request.infer()
    np.testing.assert_array_equal(request.output_tensors[0].data, x)
    assert len(ran) == before
    np.testing.assert_array_equal(compiled.infer([x])[0], x)


def interrupt_compile() -> None:
    """Ctrl-C while the first of several regions is compiled."""
    steps, done = 6, []

    class Core:
        def compile_model(self, *args: Any) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            done.append(args)
            return core().compile_model(*args)

    model = slow(steps)
    threads = DeviceThreads()
    regions = [Region(ONE, (f"step{step}",)) for step in range(steps)]
    try:
        DataflowModel(Core(), model, regions, threads=threads)
    except KeyboardInterrupt:
        threads.close()
        print("interrupted", len(done) < steps, flush=True)


def end() -> None:
    """End without closing anything, while an inference runs."""
    compiled = placed(slow(10), {f"step{step}": OTHER for step in range(1, 10, 2)})
    x = np.zeros((256, 256), np.float32)
    compiled.infer([x])
    globals()["kept"] = compiled, compiled.start_async([x])
    print("ended", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
