"""Stores filled with examples, and other processes that use one."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from device_placement.envs.evaluation import NAN, Measurement
from device_placement.envs.measuring.store import EvaluationStore

PROBLEM = {"model": "diamond", "devices": ["CPU", "GPU.0"], "timing": {"factor": math.inf}}
OTHER = {"model": "diamond", "devices": ["CPU", "GPU.1"], "timing": {"factor": math.inf}}
OPS = bytes([0, 0, 1, 0])
REFERENCE = {"model": "diamond", "device": "CPU"}
SAMPLES = (0.1, 0.2, 1 / 3)
EXAMPLES = [
    Measurement(pairs=((0.1, 0.2), (1 / 3, 5e-324)), num_subgraphs=3, compile_s=1.5, run_s=0.25),
    Measurement(pairs=((0.1, NAN), (1.7e308, math.nan)), compile_s=-0.0),
    Measurement(pairs=((0.5, 0.25),), output_error=1e-7, output_cosine=-0.0),
    Measurement(output_error=math.inf, output_cosine=0.1 + 0.2),
    Measurement(error="Check 'a' failed:\n\0 größer 😀", failed_to_compile=True, compile_s=0.1),
]


def exact(measurements: tuple[Measurement, ...] | list[Measurement]) -> list[str]:
    """Every bit of them: a repr tells -0.0 from 0.0 and True from 1, and NaN equals NaN."""
    return [repr(one) for one in measurements]


def fill(store: EvaluationStore) -> None:
    for number in range(4):
        for example in EXAMPLES:
            store.add(PROBLEM, OPS * 30, example)
            store.add(OTHER, bytes([number]), example)
    store.fix_reference(REFERENCE, SAMPLES)


def check_content(store: EvaluationStore) -> None:
    """What `fill` added is there."""
    assert exact(store.get(PROBLEM, OPS * 30)) == exact(EXAMPLES * 4)
    for number in range(4):
        assert exact(store.get(OTHER, bytes([number]))) == exact(EXAMPLES)
    assert store.get_reference(REFERENCE) == SAMPLES


IMPORTS = """
import contextlib, os, signal, sys
from device_placement.envs.errors import StoreError
from device_placement.envs.evaluation import Measurement
from device_placement.envs.measuring.store import EvaluationStore

def refused(action, *args):
    try:
        action(*args)
    except StoreError:
        return True
    return False

path = sys.argv[1]
"""


def run_child(code: str, *args: object, under: tuple[str, ...] = ()) -> str:
    command = [*under, sys.executable, "-W", "error", "-c", IMPORTS + code, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(f"can't mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
