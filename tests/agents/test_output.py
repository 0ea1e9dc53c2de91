"""Errors of a reader that has gone, and others."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from device_placement.agents.output import is_reader_gone, printable_output


def test_a_pipe_without_a_reader_is_told_from_other_errors(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(OSError, match=r".") as gone, os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(b"text")
    assert is_reader_gone(gone.value)
    with pytest.raises(OSError, match=r".") as missing:
        (tmp_path / "none").open()
    assert not is_reader_gone(missing.value)


def test_windows_has_an_error_of_its_own_for_it() -> None:
    gone = OSError(errno.EINVAL, "Invalid argument")
    wrong_name = OSError(errno.EINVAL, "Invalid argument", "a?b")
    assert is_reader_gone(gone, "win32")
    assert not is_reader_gone(wrong_name, "win32")
    assert not is_reader_gone(gone, "linux")
    assert is_reader_gone(BrokenPipeError(errno.EPIPE, "Broken pipe"), "win32")
    assert not is_reader_gone(OSError(errno.ENOSPC, "No space left"), "win32")


def test_control_characters_are_escaped_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    stream = sys.stdout
    with printable_output():
        print("a\x1b[2Jb \ud800 †\n\tc", flush=True)
        assert sys.stdout.encoding == stream.encoding
    assert sys.stdout is stream
    assert capsys.readouterr().out == "a\\x1b[2Jb \\ud800 †\n\tc\n"
