"""Evaluators that measure in a process of their own, and a look at such processes."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil

from device_placement.envs import OpenVINOEvaluator
from problems import TWO_CPUS, measured

QUICK = {"max_samples": 6, "store": None, "confirmations": 0}


def isolated(**options: Any) -> OpenVINOEvaluator:
    ready = measured()
    return OpenVINOEvaluator(
        ready.model, ready.coarse, TWO_CPUS, core=ready.core, **QUICK | options
    )


def mixed(evaluator: OpenVINOEvaluator, number: int) -> list[int]:
    """The placement of a number, which is no single."""
    return [(number >> group) & 1 for group in range(evaluator.coarse.num_groups)]


OTHERS: set[int] = set()  # measuring processes of other tests


def workers() -> list[psutil.Process]:
    """The measuring processes among the descendants of this one, and every zombie."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            zombie = one.status() == psutil.STATUS_ZOMBIE
            if zombie or "measuring.worker" in " ".join(one.cmdline()):
                found.append(one)
    return [one for one in found if one.pid not in OTHERS]
