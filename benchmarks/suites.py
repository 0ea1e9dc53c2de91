"""The problems that placers are compared on; data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One model on one machine of the table `HARDWARE`, under one schedule."""

    model: str
    hardware: str
    devices: str = "auto"
    schedule: str = "sequential"


# The machine of HSDAG; singles take what its table 2 says.
PAPER: Mapping[str, Problem] = {
    "resnet50 on paper": Problem("resnet50", "paper"),
    "inception_v3 on paper": Problem("inception_v3", "paper"),
    "bert_base on paper": Problem("bert_base", "paper"),
}

# Problems on which the best single is 10 % or more above the best known placement.
HARD: Mapping[str, Problem] = {
    "two GPUs, concurrent": Problem("inception_v3", "server", "GPU.0,GPU.1", "concurrent"),
    "CPU and GPU, concurrent": Problem("inception_v3", "paper", "auto", "concurrent"),
    "four devices, max_load": Problem("bert_base", "server", "CPU,GPU.0,GPU.1,GPU.2", "max_load"),
    "small GPU": Problem("bert_base", "small_gpu"),
    "NPU without some ops": Problem("bert_base", "laptop", "CPU,NPU"),
    "CPU, iGPU, NPU, concurrent": Problem("inception_v3", "laptop", "auto", "concurrent"),
    "CPU, iGPU, NPU, pipelined": Problem("resnet50", "laptop", "auto", "pipelined"),
}

SUITES: Mapping[str, Mapping[str, Problem]] = {"paper": PAPER, "hard": HARD}
"""Name -> problems by name."""
