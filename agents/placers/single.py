"""The best single device: what any other placement has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from device_placement.agents.placers.result import PlacerResult, Trace
from device_placement.envs.execution.evaluation import Evaluator


@dataclass(frozen=True)
class BestSingle:
    """Evaluates everything on each device in turn; nothing is random.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> BestSingle().place(evaluator, budget=3, seed=0).assignment
    (0, 0, 0, 0)
    """

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, as `Placer` says."""
        trace = Trace(evaluator, budget)
        trace.singles()
        return trace.result()
