"""The command `device-placement` in processes that kill themselves, each at its moment.

    python killed.py '[["evaluation", 80, ["train", "--model", ...]], ...]'

SIGKILL comes in the middle of what `MOMENTS` names, when it happens for that time. It is printed
how each process ended. They are forked from one that has imported everything, which saves its time.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from typing import Any

import torch.utils.tensorboard  # noqa: F401
import torch_geometric.nn  # noqa: F401
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy

import device_placement.agents.commands.train  # noqa: F401
from device_placement.agents.cli import main
from device_placement.agents.runs.recording import RecordingEvaluator

MOMENTS: dict[str, tuple[type[Any], str]] = {
    "evaluation": (RecordingEvaluator, "evaluate"),
    "update": (ActorCriticPolicy, "evaluate_actions"),
    "saving": (BaseAlgorithm, "save"),
}


def kill_at(moment: str, number: int) -> None:
    owner, name = MOMENTS[moment]
    original, calls = getattr(owner, name), itertools.count(1)

    def counted(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, counted)


def start(moment: str, number: int, words: list[str]) -> int:
    if pid := os.fork():
        return pid
    kill_at(moment, number)
    os._exit(main(words))


if __name__ == "__main__":
    pids = [start(*case) for case in json.loads(sys.argv[1])]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    print(json.dumps(codes))
