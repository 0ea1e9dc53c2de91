"""Measure in a subprocess, so that a plugin's crash, hang or leak stays there."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import openvino as ov

from device_placement.envs.evaluation import Measurement
from device_placement.envs.executors.dataflow import RegionRun
from device_placement.envs.measuring.bench import BenchConfig, Entry, Job
from device_placement.envs.measuring.exit_codes import describe_exit
from device_placement.envs.measuring.worker import MODEL_FILE, PARENT_VARIABLE

# -P: the current folder is not searched for modules, unless this process searches it.
COMMAND = (sys.executable, "-P", "-m", "device_placement.envs.measuring.worker")
TEMPORARY = "TEMP" if sys.platform == "win32" else "TMPDIR"  # the variable that names the folder
START_S = 300.0  # for loading OpenVINO, the devices and the model
T = TypeVar("T")
_log = logging.getLogger("device_placement")


class IsolatedBench:
    """Bench in a worker process, which is replaced when it is lost or used up.

    Args:
        model: the normalised model, which each new worker loads.
        config: devices, ops and protocol.
        timeout_s: limit of one measurement, without loading the model.
        max_evaluations: measurements after which the worker is replaced.
    """

    def __init__(
        self,
        model: ov.Model,
        config: BenchConfig,
        timeout_s: float,
        max_evaluations: int,
    ) -> None:
        self._model = model
        self._config = config
        self._timeout_s = timeout_s
        self._max_evaluations = max_evaluations
        self._worker: Worker | None = None
        self._owner = 0  # the process that started the worker
        self._done = 0

    def time_reference(self, op_devices: bytes) -> Measurement:
        """Time a placement thoroughly, alone."""
        result: Measurement = self._call(self._timeout_s, "time_reference", op_devices)
        return result

    def measure(self, job: Job) -> Measurement:
        """Compile a placement, check its outputs if asked, and time it."""
        result: Measurement = self._call(self._timeout_s, "measure", job)
        return result

    def compare(
        self, entries: Sequence[Entry], rounds: int, warmup: int, max_seconds: float
    ) -> list[Measurement]:
        """Compile all, then take one sample of each in turn, round after round."""
        limit_s = self._timeout_s * len(entries) + max_seconds
        arguments = list(entries), rounds, warmup, max_seconds
        result: list[Measurement] = self._call(limit_s, "compare", *arguments)
        return result

    def repeat(self, op_devices: bytes) -> tuple[float, float]:
        """Run a placement again and again; return how its outputs differ."""
        result: tuple[float, float] = self._call(self._timeout_s, "repeat", op_devices)
        return result

    def timeline(self, op_devices: bytes) -> list[RegionRun]:
        """Return when each region of a placement ran in a typical run."""
        result: list[RegionRun] = self._call(self._timeout_s, "timeline", op_devices)
        return result

    def close(self) -> None:
        """End the worker; the next measurement starts another one."""
        if self._worker is not None and self._owner == os.getpid():
            self._worker.close()
        self._worker = None

    def _call(self, limit_s: float, method: str, *arguments: Any) -> Any:
        if self._done >= self._max_evaluations:
            self.close()
        worker = self._worker
        if worker is not None and self._owner == os.getpid() and worker.alive:
            self._done += 1
            try:
                return worker.call(method, *arguments, limit_s=limit_s)
            except WorkerError:
                if worker.stage != WAITING:
                    raise  # else it died before it began, which the placement did not cause
        self._worker, self._owner, self._done = self._start(), os.getpid(), 1
        return self._worker.call(method, *arguments, limit_s=limit_s)

    def _start(self) -> Worker:
        self.close()
        worker = Worker(COMMAND)
        try:
            self._hand_over(worker)
        except BaseException:
            worker.kill()
            raise
        _log.info("Started the measuring process %d.", worker.pid)
        return worker

    def _hand_over(self, worker: Worker) -> None:
        """Pass the model to a new worker, through a temporary folder."""
        folder = Path(worker.call("make_folder", limit_s=START_S))
        try:
            ov.serialize(self._model, folder / MODEL_FILE)
            worker.call("load", self._config, limit_s=START_S)
        except WorkerError:
            raise
        except RuntimeError as error:
            raise WorkerError(
                f"Can't pass the model to the measuring process through {str(folder)!r}: "
                f"{error} Free space there, set {TEMPORARY} to another folder, or use "
                "isolation='none'."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)


ATTEMPTS = 2  # as something else, such as a shortage of memory, may have ended the worker


def insist(call: Callable[[], T], attempts: int = ATTEMPTS) -> T:
    """Return the result of a call to a bench, which is repeated when the worker is lost.

    Raises:
        WorkerError: of the last attempt, when the worker was lost each time.
    """
    for _ in range(attempts - 1):
        try:
            return call()
        except WorkerError as error:
            _log.info("Trying again: %s", error)
    return call()


GOODBYE_S = 5.0  # how long a worker may take to exit when its input ends
LAST_WORDS = 2000  # bytes of a worker's error output that are read
WAITING = "starting"  # until a worker reports its first stage


class WorkerError(RuntimeError):
    """Error of a worker that was lost or failed; the message has the reason."""


class WorkerTimeoutError(WorkerError):
    """Error of a worker that took too long and was killed."""


class Worker:
    """Measuring process, and the pipes to it.

    Args:
        command: starts the process.

    Raises:
        WorkerError: when it can't be started.
    """

    def __init__(self, command: Sequence[str]) -> None:
        with contextlib.ExitStack() as stack:
            try:
                # A file without a name: it is deleted when the last process closes it.
                self._errors: Any = stack.enter_context(tempfile.TemporaryFile())
                self._process = _start(command, self._errors)
            except OSError as error:
                raise WorkerError(f"The measuring process can't be started: {error}") from error
            stack.pop_all()  # _end closes it
        self.pid = self._process.pid
        self.stage = WAITING
        self._answers: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
        receiver = threading.Thread(
            target=_receive, args=(self._process.stdout, self._answers), daemon=True
        )
        receiver.start()
        self._end = weakref.finalize(self, _end, self._process, self._errors, os.getpid(), receiver)

    @property
    def alive(self) -> bool:
        """Whether it was neither closed nor lost, and is a child of this process."""
        return self._end.alive and self._process.poll() is None

    def call(self, method: str, *arguments: Any, limit_s: float) -> Any:
        """Call a method in the worker, and return its result.

        Raises:
            WorkerError: when it failed, or the worker crashed or took too long. The worker is
                then killed, as after any other exception (Ctrl-C, say).
        """
        self.stage = WAITING
        try:
            self._send((method, arguments, limit_s))
            return self._await(limit_s)
        except BaseException:
            self.kill()
            raise

    def close(self) -> None:
        """End the worker by closing its input."""
        self._end()

    def kill(self) -> None:
        """End the worker at once."""
        if self._end.alive:
            self._process.kill()
            self._end()

    def _send(self, request: tuple[str, tuple[Any, ...], float]) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(request, self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerError(self._obituary()) from error

    def _await(self, limit_s: float) -> Any:
        end = time.monotonic() + limit_s
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise WorkerTimeoutError(
                    f"Timed out: the measuring process took more than {limit_s:g} s and was "
                    f"killed while {self.stage}."
                ) from None
            if answer is None:
                raise WorkerError(self._obituary())
            kind, content = answer
            if kind == "done":
                return content
            if kind == "failed":
                raise WorkerError(f"The measuring process failed while {self.stage}: {content}")
            self.stage = content

    def _obituary(self) -> str:
        """Return how the process ended."""
        try:
            status = self._process.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            return f"The measuring process closed its pipe while {self.stage}."
        cause, words = describe_exit(status), self._last_words()
        return f"The measuring process {cause} while {self.stage}.{words and f' It said: {words}'}"

    def _last_words(self) -> str:
        """Return the last line of its error output, without Python's own dump."""
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - LAST_WORDS))
        text = self._errors.read().decode(errors="replace").partition("Fatal Python error")[0]
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def _start(command: Sequence[str], errors: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
            PARENT_VARIABLE: str(os.getpid()),
        },
        # Ctrl-C goes to the foreground process, which then ends this one.
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


def _receive(answers: BinaryIO, inbox: queue.SimpleQueue[tuple[str, Any] | None]) -> None:
    """Put answers into the inbox; None when there will be no more."""
    with contextlib.suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
        while True:
            inbox.put(pickle.load(answers))
    inbox.put(None)


def _end(
    process: subprocess.Popen[bytes], errors: BinaryIO, owner: int, receiver: threading.Thread
) -> None:
    """Close the pipes and reap the process; in a fork of its owner, do nothing."""
    if os.getpid() != owner:
        return
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(OSError):  # unwritten data has no reader any more
        process.stdin.close()
    try:
        process.wait(GOODBYE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    receiver.join(GOODBYE_S)
    process.stdout.close()
    errors.close()
