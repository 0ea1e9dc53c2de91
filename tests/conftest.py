"""Tests keep out of the user's store and out of the way of measurements on this machine.

Here are also the fixtures of several test files.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from platforms import WINDOWS

if TYPE_CHECKING:
    from device_placement.benchmarks.suite.suites import Suite
    from device_placement.envs import EvaluationStore

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # Shells start jobs in the background so, and commands started by tests would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

_folder = tempfile.TemporaryDirectory(prefix="device-placement-tests-")
# Set before anything is imported, so that commands started by tests inherit it.
os.environ["DEVICE_PLACEMENT_STORE"] = str(Path(_folder.name) / "evaluations.sqlite")
os.environ["DEVICE_PLACEMENT_LOCK"] = str(Path(_folder.name) / "lock")


@pytest.fixture(scope="session", autouse=True)
def remove_the_store() -> Iterator[None]:
    yield
    _folder.cleanup()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all the tests of a file, and for all the examples of each."""
    return tmp_path_factory.mktemp("folder")


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "evaluations.sqlite"


@pytest.fixture
def store(store_path: Path) -> EvaluationStore:
    from device_placement.envs import EvaluationStore

    return EvaluationStore(store_path)


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes workers misbehave: the kind of fault, the stage and the placements."""
    from device_placement.envs.measuring import isolation

    def install(fault: str, stage: str, jobs: str) -> None:
        if WINDOWS:
            pytest.skip("the faults are calls of POSIX")
        if fault == "starve" and sys.platform != "linux":
            pytest.skip("only Linux keeps to a limit of memory")
        counter = tmp_path / "counter"
        counter.write_text("0")
        worker = str(Path(__file__).parent / "helpers" / "faulty_worker.py")
        command = (sys.executable, worker, str(counter), fault, stage, jobs)
        monkeypatch.setattr(isolation, "COMMAND", command)

    return install


@pytest.fixture(scope="session")
def one_thread() -> None:
    """Networks so small are slower with more, and slower still beside other work."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def ignore_other_workers() -> None:
    """`processes.workers` leaves out the measuring processes of earlier tests."""
    import processes

    processes.OTHERS.clear()
    processes.OTHERS.update(one.pid for one in processes.workers())


@pytest.fixture
def tiny_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite ``tiny`` beside the others."""
    from device_placement.benchmarks.suite.suites import SUITES
    from tiny_benchmark import TINY

    monkeypatch.setitem(cast("dict[str, Suite]", SUITES), "tiny", TINY)
