"""How the end of a process is described, on every system."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from device_placement.envs.measuring.exit_codes import describe_exit
from platforms import needs_signals


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "ended with status 0"),
        (255, "ended with status 255"),
        (0xC0000005, r"crashed with 0xC0000005 \(access violation\)"),
        (0xC0000005 - 2**32, r"crashed with 0xC0000005 \(access violation\)"),
        (0xC00000FD, r"crashed with 0xC00000FD \(stack overflow\)"),
        (0xC0001234, "crashed with 0xC0001234"),
        (-int(signal.SIGTERM), "was killed by SIGTERM"),
        (-64, "was killed by (SIGRTMAX|signal 64)"),
        (-63, "was killed by (SIGRTMAX-1|signal 63)"),
    ],
)
def test_an_exit_code_is_named(code: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        raise ValueError(describe_exit(code))


@needs_signals
def test_a_process_that_the_system_kills_may_have_lacked_memory() -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert describe_exit(done.returncode).startswith("was killed by SIGKILL (the system does this")
