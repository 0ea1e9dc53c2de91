"""Tell the end of a reader of standard output from other errors."""

from __future__ import annotations

import errno
import sys


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
