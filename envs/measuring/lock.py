"""Lock that allows one measurement at a time on this machine."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from device_placement.envs.errors import DevicePlacementError

PATH_VARIABLE = "DEVICE_PLACEMENT_LOCK"
SHOW_AFTER_S = 2.0  # shorter waits are not logged
POLL_S = 0.01

_log = logging.getLogger("device_placement")


def lock_path() -> Path:
    """Return the lock file: one for all users of this machine, unless the environment names one.

    On Windows it is in the public folder, whose files all users may change. The variable is
    ``DEVICE_PLACEMENT_LOCK``. Containers with separate ``/tmp`` folders do not see each other;
    give them a common file.
    """
    if named := os.environ.get(PATH_VARIABLE):
        return Path(named)
    shared = os.environ.get("PUBLIC") if sys.platform == "win32" else "/tmp"
    return Path(shared or tempfile.gettempdir()) / "device-placement.lock"


@contextlib.contextmanager
def machine_lock() -> Iterator[None]:
    """Hold the measuring lock of this machine; a process that holds it may take it again.

    A wait of more than two seconds is logged. The operating system frees the lock of a
    process that dies.

    Raises:
        DevicePlacementError: when the file can't be used: two measurements at a time would
            falsify each other.
    """
    lock = _lock(str(lock_path()), os.getpid())
    _acquire(lock)
    try:
        yield
    finally:
        lock.release()


@functools.cache
def _lock(path: str, _pid: int) -> BaseFileLock:
    """Return one lock per file and process, so that taking it twice does not deadlock."""
    return FileLock(path, mode=0o666)


def _acquire(lock: BaseFileLock) -> None:
    try:
        try:
            lock.acquire(timeout=SHOW_AFTER_S, poll_interval=POLL_S)
        except Timeout:
            _log.warning(
                "Waiting: another process is measuring on this machine (lock %s) ...",
                lock.lock_file,
            )
            lock.acquire(poll_interval=POLL_S)
    except (OSError, NotImplementedError) as error:
        raise DevicePlacementError(
            f"Can't use the lock {lock.lock_file!r} ({error}), so another process could measure at "
            "the same time; nothing was measured. Set the path of a file that all who measure on "
            f"this machine may write in {PATH_VARIABLE}."
        ) from error
