"""What is freed stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys
import textwrap

import pytest

FAULTS = """
    import ctypes, resource, sys

    from device_placement.agents.training.malloc import keep_freed_memory

    libc = ctypes.CDLL(None)
    libc.malloc.restype, size = ctypes.c_void_p, 40_000_000
    if sys.argv[1] == "kept":
        assert keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        block = ctypes.c_void_p(libc.malloc(size))
        libc.memset(block, 1, size)
        libc.free(block)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(which: str) -> int:
    """How many pages the system had to clear."""
    command = [sys.executable, "-c", textwrap.dedent(FAULTS), which]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_pages_are_cleared_once() -> None:
    assert faults("kept") < 0.1 * faults("given back")
