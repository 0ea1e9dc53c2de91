"""Describe how a process ended: by a signal, by a crash on Windows, or with a status."""

from __future__ import annotations

import signal

FATAL = 0xC0000000  # the least NTSTATUS that is an error; exit codes of programs are below
CRASHES = {
    0xC0000005: "access violation",
    0xC0000006: "in-page error",
    0xC0000017: "out of memory",
    0xC000001D: "illegal instruction",
    0xC0000094: "integer division by zero",
    0xC000009A: "insufficient system resources",
    0xC00000FD: "stack overflow",
    0xC000012D: "out of virtual memory",
    0xC0000135: "DLL not found",
    0xC0000139: "entry point not found in a DLL",
    0xC000013A: "Ctrl-C",
    0xC0000142: "DLL initialisation failed",
    0xC0000374: "heap corruption",
    0xC0000409: "abort or stack buffer overrun",
}
"""NTSTATUS -> meaning, for those that crashes leave as exit codes on Windows."""


def describe_exit(code: int) -> str:
    """Return how a process ended, as the end of a sentence about it.

    Args:
        code: as `subprocess` and `multiprocessing` give it: minus the number of a signal, or the
            exit status; for a crash on Windows this is the NTSTATUS of the exception.

    >>> describe_exit(3)
    'ended with status 3'
    >>> describe_exit(0xC0000005)
    'crashed with 0xC0000005 (access violation)'
    """
    status = code & 0xFFFFFFFF  # an NTSTATUS may come as a negative number
    if status in CRASHES:
        return f"crashed with 0x{status:08X} ({CRASHES[status]})"
    if code >= FATAL:
        return f"crashed with 0x{status:08X}"
    if code >= 0:
        return f"ended with status {code}"
    kill = getattr(signal, "SIGKILL", None)  # Windows has none
    memory = " (the system does this when memory runs out)" if -code == kill else ""
    return f"was killed by {_signal_name(-code)}{memory}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
