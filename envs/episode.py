"""Where an episode stands, and the information that a step gives of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from device_placement.envs.execution.evaluation import NAN, Evaluation
from device_placement.envs.formulations import Assignment


class Numbers(list[int]):
    """A list whose deep copy takes no longer than a copy, as nothing in it can change.

    SB3's `DummyVecEnv` copies all information deeply in each step, which for hundreds of groups
    took a quarter of a training.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Numbers:
        return Numbers(self)


@dataclass
class Episode:
    """The state that an episode changes."""

    graph_id: int
    assignment: Assignment  # (num_groups,) -1: no device yet
    step: int = 0  # actions so far
    evaluation: Evaluation | None = None  # of the last action
    time_s: float = NAN  # what the next reward compares with

    def information(self, reference_s: float, best_s: float, best: list[int]) -> dict[str, Any]:
        """What a step tells besides the observation.

        Args:
            reference_s: the time of the reference single.
            best_s: the best time so far.
            best: (num_groups,) the placement that took it.
        """
        shown = self.evaluation or Evaluation(time_s=NAN)
        return {
            "time_s": shown.time_s,
            "samples_s": shown.samples_s,
            "interval_s": shown.interval_s,
            "valid": self.evaluation is not None and shown.valid,
            "error": shown.error,
            "speedup": NAN if math.isnan(shown.time_s) else reference_s / shown.time_s,
            "num_subgraphs": shown.num_subgraphs,
            "compile_s": shown.compile_s,
            "cached": shown.cached,
            "cut_short": shown.cut_short,
            "placement": Numbers(self.assignment.tolist()),
            "best_time_s": best_s,
            "best_placement": Numbers(best),
            "output_error": shown.output_error,
            "output_cosine": shown.output_cosine,
        }

    def to_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "graph_id": self.graph_id,
            "assignment": self.assignment.tolist(),
            "step": self.step,
            "evaluation": self.evaluation and self.evaluation.to_json(),
            "time_s": self.time_s,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Episode:
        """The inverse of `to_json`."""
        evaluation = content["evaluation"]
        return cls(
            graph_id=content["graph_id"],
            assignment=np.array(content["assignment"], dtype=np.int64),
            step=content["step"],
            evaluation=evaluation and Evaluation.from_json(evaluation),
            time_s=content["time_s"],
        )
