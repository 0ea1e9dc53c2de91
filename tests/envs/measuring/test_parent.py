"""Processes that are watched, and end."""

from __future__ import annotations

import subprocess
import sys
import threading

import psutil

from device_placement.envs.measuring.parent import is_alive, watch_process
from waiting import PATIENCE_S


def test_the_end_of_a_process_is_noticed_before_it_is_reaped() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    seen, ended = psutil.Process(process.pid), threading.Event()
    try:
        watch_process(process.pid, ended.set)
        assert is_alive(seen)
        assert not ended.is_set()
        process.kill()
        assert ended.wait(PATIENCE_S)
        assert not is_alive(seen)
    finally:
        process.communicate()
    gone = threading.Event()
    watch_process(process.pid, gone.set)  # it is not there any more
    assert gone.is_set()
