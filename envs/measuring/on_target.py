"""Work of a cluster's worker: report itself, keep models, and measure in sessions.

A session is one problem of one client: a model with its core and its benches. Its client opens it,
and opens it again when the worker has been replaced.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import sys
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

if "openvino" not in sys.modules:
    # It sends telemetry on import, from a fork, which would hold a worker's connections.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov

from device_placement.envs.devices import (
    Device,
    RestoringCore,
    add_extensions,
    device_names,
    make_core,
)
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.measuring.bench import Bench, BenchConfig
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.machine import describe_host, describe_machine
from device_placement.envs.measuring.target import bench_here, devices_here, run_python
from device_placement.envs.measuring.target_report import FOLDER_VARIABLE, Report
from device_placement.envs.measuring.worker import MODEL_FILE

T = TypeVar("T")

MOST_SESSIONS = 4  # that are kept, as a client may go away without closing its own


def report() -> Report:
    """Return what this worker is."""
    names = device_names(add_extensions(RestoringCore()))
    return Report(describe_machine(), describe_host(), dict(names))


class UnknownSessionError(RuntimeError):
    """A session or files that this worker does not have, as it was replaced."""


class UnknownBenchError(RuntimeError):
    """A bench that a session does not have, as it was opened again."""


@dataclass
class Session:
    """Model with its core and benches."""

    core: ov.Core
    model: ov.Model
    benches: dict[str, Bench] = field(default_factory=dict)

    def close(self) -> None:
        """End the measuring processes."""
        for bench in self.benches.values():
            bench.close()


_sessions: OrderedDict[str, Session] = OrderedDict()
_opening = threading.Lock()


def sent_files() -> Path:
    """Return the folder of what clients have sent, which lives as long as the command `worker`."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    return _own_folder()


@functools.cache
def _own_folder() -> Path:
    """Return a folder of this process, for a worker that another command has started."""
    folder = tempfile.mkdtemp(prefix="device-placement-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def sent_to() -> str:
    """Return `sent_files` as text."""
    return str(sent_files())


def has_files(key: str) -> bool:
    """Return whether some files were sent before."""
    return (sent_files() / key).is_dir()


def put_part(key: str, sender: str, name: str, part: bytes, first: bool) -> None:
    """Append to a file that is being sent.

    Args:
        key: of `key_of` all files.
        sender: distinguishes clients that send the same.
        name: of the file, relative.
        part: its next bytes.
        first: whether these are the first ones.
    """
    path = sent_files() / f"{key}.{sender}" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb" if first else "ab") as file:
        file.write(part)


def end_files(key: str, sender: str, names: Sequence[str]) -> None:
    """Check files that were sent, and keep them.

    Raises:
        UnknownSessionError: when they are not whole.
    """
    draft, folder = sent_files() / f"{key}.{sender}", sent_files() / key
    found = {name: draft / name for name in names}
    if not all(path.is_file() for path in found.values()) or key_of(found) != key:
        raise UnknownSessionError(f"the files {key} did not arrive whole")
    with contextlib.suppress(OSError):  # another client was quicker
        draft.rename(folder)
    shutil.rmtree(draft, ignore_errors=True)


def key_of(files: dict[str, Path]) -> str:
    """Return the hash of the names and contents of files."""
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while part := file.read(1 << 22):
                digest.update(part)
    return digest.hexdigest()[:40]


@dataclass(frozen=True)
class Problem:
    """What a session is about."""

    files: str  # key of the model's files
    devices: str | tuple[str | Device, ...]  # as `parse_devices` takes them
    executor: str


def open_session(key: str, problem: Problem) -> tuple[Device, ...]:
    """Read a model, set up its devices, and return them.

    Raises:
        DeviceError: when a device is missing or can't be loaded.
        UnknownSessionError: when the model was not sent.
    """
    path = sent_files() / problem.files / MODEL_FILE
    if not path.is_file():
        raise UnknownSessionError(f"the model {problem.files} was not sent")
    with machine_lock():
        model = add_extensions(RestoringCore()).read_model(path)
        devices = devices_here(model, problem.devices, problem.executor)
        core = make_core(devices)
        session = Session(core, core.read_model(path))
    with _opening:
        _sessions[key] = session
        dropped = [_sessions.popitem(last=False)[1] for _ in range(len(_sessions) - MOST_SESSIONS)]
    for one in dropped:
        one.close()
    return devices


def close_session(key: str) -> None:
    """End a session, if it exists, without waiting for its processes."""
    with _opening:
        session = _sessions.pop(key, None)
    if session is not None:
        threading.Thread(target=session.close, daemon=True).start()


def call(key: str, function: Callable[..., T], args: Sequence[Any], options: dict[str, Any]) -> T:
    """Call a function with a session's core and model, while nothing else is measured here."""
    session = _session(key)
    with machine_lock():
        return function(session.core, session.model, *args, **options)


def graph_of(core: ov.Core, model: ov.Model, devices: tuple[Device, ...]) -> ComputationGraph:
    """Return the graph of a session's model."""
    return read_graph(model, devices, core)


def open_bench(key: str, bench: str, bench_config: BenchConfig, config: MeasureConfig) -> None:
    """Make a bench in a session; its processes start when it measures."""
    session = _session(key)
    session.benches[bench] = bench_here(session.model, session.core, bench_config, config)


def call_bench(key: str, bench: str, method: str, args: Sequence[Any]) -> Any:
    """Call a method of a bench, while nothing else is measured here."""
    benches = _session(key).benches
    if bench not in benches:
        raise UnknownBenchError(f"there is no bench {bench}")
    with machine_lock():
        return getattr(benches[bench], method)(*args)


def started_benches() -> list[str]:
    """Return the keys of the benches of all sessions."""
    with _opening:
        return [key for session in _sessions.values() for key in session.benches]


def run_sent_program(
    files: str, command: Sequence[str], limit_s: float
) -> tuple[int, str, str] | None:
    """Run a Python program of files that were sent; see `Target.run_program`."""
    if not has_files(files):
        raise UnknownSessionError(f"the files {files} were not sent")
    return run_python(command, str(sent_files() / files), limit_s)


def _session(key: str) -> Session:
    with _opening:
        if key not in _sessions:
            raise UnknownSessionError(f"there is no session {key}")
        _sessions.move_to_end(key)
        return _sessions[key]
