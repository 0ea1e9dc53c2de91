"""Measuring process: ``python -m device_placement.envs.measuring.worker``.

It exchanges pickles over its standard input and output with the process that started it, see
`isolation`. A request is ``(method, arguments, limit_s)``; the answers are any number
of ``("stage", text)``, then ``("done", result)`` or ``("failed", text)``. The process exits
as soon as its input ends, or soon after the process that started it has died: a fork of that one
may keep the input open.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import queue
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":
    # OpenVINO sends telemetry on import, from a forked process. That one would hold this process's
    # pipes, run beside its measurements, and may wait for ever for a lock held when it was forked.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

from device_placement.envs.devices import make_core, missing_extension
from device_placement.envs.measuring.bench import BenchConfig, LocalBench
from device_placement.envs.measuring.parent import watch_process

LAST_RESORT_S = 30.0  # seconds past its time limit after which a worker ends itself
MODEL_FILE = "model.xml"
PARENT_VARIABLE = "DEVICE_PLACEMENT_PARENT"  # names the process that started this one


class Server:
    """Server of the requests of the process that started this one.

    Args:
        answers: where the answers go.
    """

    def __init__(self, answers: BinaryIO) -> None:
        self._answers = answers
        self._folder: Path | None = None
        self._bench: LocalBench | None = None

    def make_folder(self) -> str:
        """Create a folder for the model, which this process removes, and return it."""
        self._folder = Path(tempfile.mkdtemp(prefix="device-placement-"))
        return str(self._folder)

    def load(self, config: BenchConfig) -> None:
        """Read the model from the folder, remove the folder, and set up the bench."""
        assert self._folder is not None
        core = make_core(config.devices)
        try:
            # Mapped into memory, the file could not be removed everywhere.
            model = core.read_model(self._folder / MODEL_FILE, config={"ENABLE_MMAP": False})
        except RuntimeError as error:
            raise RuntimeError(
                f"{str(error).strip()} {missing_extension(error)}".strip()
            ) from error
        self.clean_up()
        self._bench = LocalBench(model, core, config, lambda stage: self.answer("stage", stage))

    def clean_up(self) -> None:
        """Remove the folder, if it still exists."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def exit(self) -> None:
        """End the process at once."""
        self.clean_up()
        sys.stderr.flush()
        os._exit(0)

    def answer(self, kind: str, content: Any) -> None:
        """Send one answer."""
        pickle.dump((kind, content), self._answers, protocol=pickle.HIGHEST_PROTOCOL)
        self._answers.flush()

    def serve(self, method: str, arguments: tuple[Any, ...], limit_s: float) -> None:
        """Carry out one request and answer it."""
        owner = self if hasattr(self, method) else self._bench
        function: Callable[..., Any] = getattr(owner, method)
        # Not a Python thread: it also ends a plugin that never releases the interpreter.
        faulthandler.dump_traceback_later(limit_s + LAST_RESORT_S, exit=True)
        try:
            self.answer("done", function(*arguments))
        except MemoryError as error:
            self.answer("failed", f"ran out of memory: {error}")
        except (RuntimeError, ValueError, OSError) as error:
            self.answer("failed", f"{type(error).__name__}: {error}")
        finally:
            faulthandler.cancel_dump_traceback_later()


def main() -> None:
    """Serve until the input ends."""
    requests, answers = _take_pipes()
    server = Server(answers)
    inbox: queue.SimpleQueue[tuple[str, tuple[Any, ...], float]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox, server), daemon=True).start()
    if parent := os.environ.get(PARENT_VARIABLE):
        watch_process(int(parent), server.exit)
    while True:
        server.serve(*inbox.get())


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Return the pipes, out of reach of whatever a plugin reads or prints."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return requests, answers


def _receive(requests: BinaryIO, inbox: queue.SimpleQueue[Any], server: Server) -> None:
    """Put requests into the inbox; at the end of the input, exit the process at once."""
    try:
        while True:
            inbox.put(pickle.load(requests))
    except (EOFError, pickle.UnpicklingError, OSError):
        server.exit()


if __name__ == "__main__":
    main()
