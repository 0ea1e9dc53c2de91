"""A bench in a process of its own, which no plugin's crash, hang or leak gets out of."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino as ov

from device_placement.envs.execution.bench import BenchConfig, Entry, Job
from device_placement.envs.execution.evaluation import Measurement
from device_placement.envs.execution.process import WAITING, Worker, WorkerError
from device_placement.envs.execution.worker import MODEL_FILE

# -P: the current folder is not searched for modules unless it was here too.
COMMAND = (sys.executable, "-P", "-m", "device_placement.envs.execution.worker")
START_S = 300.0  # for loading OpenVINO, the devices and the model
_log = logging.getLogger("device_placement")


class IsolatedBench:
    """The bench in a process of its own, which is replaced when lost or used up.

    Args:
        model: the normalised model; it is handed to each new worker.
        config: devices, ops and protocol.
        timeout_s: limit of one measurement, its model being ready.
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
        """Compile all, then time one run of each in turn, round after round."""
        limit_s = self._timeout_s * len(entries) + max_seconds
        arguments = list(entries), rounds, warmup, max_seconds
        result: list[Measurement] = self._call(limit_s, "compare", *arguments)
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
                    raise  # else it died before it began, which is not the placement's doing
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
        """Give a new worker the model, through a folder that is gone afterwards."""
        folder = Path(worker.call("make_folder", limit_s=START_S))
        try:
            ov.serialize(self._model, folder / MODEL_FILE)
            worker.call("load", self._config, limit_s=START_S)
        except WorkerError:
            raise
        except RuntimeError as error:
            raise WorkerError(
                f"The model can't be handed to the measuring process through {str(folder)!r}: "
                f"{error} Make room there, set TMPDIR to another folder, or use "
                "isolation='none'."
            ) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
