"""Standard output: no control characters in what is shown, and the end of its reader."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable, Iterator
from typing import Any


def is_reader_gone(error: OSError, platform: str = sys.platform) -> bool:
    """Return whether an error of writing means that the reader has closed its end.

    A pipe without a reader is EPIPE, and on Windows EINVAL. There, EINVAL of a file that can't be
    opened comes with the file's name.

    >>> is_reader_gone(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    True
    >>> is_reader_gone(OSError(errno.EINVAL, "Invalid argument"), "linux")
    False
    """
    if platform == "win32" and error.errno == errno.EINVAL:
        return error.filename is None
    return isinstance(error, BrokenPipeError)


@contextlib.contextmanager
def printable_output() -> Iterator[None]:
    r"""Escape control characters in what is printed, as names come from files of others.

    >>> with printable_output():
    ...     print("model \x1b[2J")
    model \x1b[2J
    """
    from device_placement.envs.errors import printable  # here, so that --help is quick

    with contextlib.redirect_stdout(_Escaping(sys.stdout, printable)):
        yield


class _Escaping:
    """Stream that changes what is written, and is otherwise the given one."""

    def __init__(self, stream: Any, change: Callable[[str], str]) -> None:
        self._stream, self._change = stream, change

    def write(self, text: str) -> int:
        return int(self._stream.write(self._change(text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
