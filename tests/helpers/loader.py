"""Model files are loaded in another process.

OpenVINO's readers are C++, and what breaks one must not take the tests with it.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from device_placement.envs import ModelError, load_model, model_hash

READ_TIMEOUT_S = 120.0


def serve(connection: Connection) -> None:
    """Load each file whose path comes, and send what came of it."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))  # a broken size must not take it all
    for path in iter(connection.recv, None):
        try:
            model_hash(load_model(path))
            connection.send("loaded")
        except ModelError:
            connection.send("refused")
        except BaseException as error:  # for the test to show
            connection.send(f"{type(error).__name__}: {error!r}")


class Loader:
    """A process that loads model files, and another one whenever that has died or hangs."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def load(self, path: Path) -> str:
        """Either 'loaded', 'refused', or what else came of it."""
        self.connection.send(str(path))
        try:
            if self.connection.poll(READ_TIMEOUT_S):
                return str(self.connection.recv())
            outcome = f"no answer in {READ_TIMEOUT_S} s"
        except (EOFError, ConnectionResetError):
            self.process.join()
            outcome = f"died with exit code {self.process.exitcode}"
        self.close()
        self.start()
        return outcome

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.connection.close()
