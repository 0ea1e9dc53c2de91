"""End a process when the one that it works for is gone, even if a fork keeps their pipes open."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

LOOK_S = 1.0  # between two looks, each of which takes microseconds


def watch_process(pid: int, then: Callable[[], object]) -> None:
    """Call a function in a thread once a process is gone, dead or a zombie."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        then()
        return
    threading.Thread(target=_watch, args=(process, then), daemon=True).start()


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _watch(process: psutil.Process, then: Callable[[], object]) -> None:
    while is_alive(process):
        time.sleep(LOOK_S)
    then()
