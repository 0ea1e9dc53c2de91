"""One measurement at a time on the machine, whoever asks."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring import lock as lock_module
from device_placement.envs.measuring.lock import lock_path, machine_lock

HOLD = """
    import sys
    from device_placement.envs.measuring.lock import machine_lock
    with machine_lock():
        print("held", flush=True)
        sys.stdin.readline()
"""
TRY = """
    import sys
    from filelock import FileLock, Timeout
    from device_placement.envs.measuring.lock import lock_path
    try:
        FileLock(lock_path()).acquire(blocking=False)
    except Timeout:
        sys.exit(3)
"""
APPEND = """
    import sys, time
    from device_placement.envs.measuring.lock import machine_lock
    for _ in range(30):
        with machine_lock(), open(sys.argv[1], "a") as file:
            file.write("in "); file.flush(); time.sleep(0.001); file.write("out "); file.flush()
"""


@pytest.fixture(autouse=True)
def own_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "lock"
    monkeypatch.setenv("DEVICE_PLACEMENT_LOCK", str(path))
    return path


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def holder() -> subprocess.Popen[str]:
    process = start(HOLD)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def is_free() -> bool:
    with start(TRY) as process:
        process.communicate()
    assert process.returncode in (0, 3)
    return process.returncode == 0


def test_a_holder_keeps_others_out_and_may_take_it_again() -> None:
    assert is_free()
    with machine_lock():
        assert not is_free()
        with machine_lock():
            assert not is_free()
        assert not is_free()
    assert is_free()


def test_it_is_given_back_when_something_fails() -> None:
    with pytest.raises(KeyboardInterrupt), machine_lock():
        raise KeyboardInterrupt
    assert is_free()


def test_the_lock_of_a_dead_process_is_taken_over() -> None:
    with holder() as process:
        process.kill()
        process.wait()
        with machine_lock():
            assert not is_free()


def test_waiting_is_shown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "SHOW_AFTER_S", 0.05)
    with holder() as process:

        class LetGo(logging.Handler):
            """Ends the holder once the waiting was told."""

            def emit(self, record: logging.LogRecord) -> None:
                assert process.stdin is not None
                process.stdin.write("\n")
                process.stdin.flush()

        handler = LetGo()
        logger = logging.getLogger("device_placement")
        logger.addHandler(handler)
        try:
            with machine_lock():
                pass
        finally:
            logger.removeHandler(handler)
    assert "Waiting: another process is measuring" in caplog.text


def test_many_processes_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(APPEND, str(log)) for _ in range(4)]
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    assert log.read_text().split() == ["in", "out"] * 120


def test_without_a_lock_nothing_is_measured(own_lock: Path) -> None:
    own_lock.mkdir()
    for _ in range(2):
        with pytest.raises(DevicePlacementError, match="DEVICE_PLACEMENT_LOCK"), machine_lock():
            pytest.fail("it was entered")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a link, which not all users may make")
def test_a_link_in_place_of_the_lock_harms_nothing(own_lock: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("whole")
    own_lock.symlink_to(precious)
    with contextlib.suppress(DevicePlacementError), machine_lock():
        pass
    assert precious.read_text() == "whole"


def test_all_users_of_a_machine_share_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEVICE_PLACEMENT_LOCK")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    monkeypatch.setattr(sys, "platform", "linux")
    assert lock_path() == Path("/tmp/device-placement.lock")
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("PUBLIC", os.fspath(Path("C:/Users/Public")))
    assert lock_path() == Path("C:/Users/Public/device-placement.lock")
