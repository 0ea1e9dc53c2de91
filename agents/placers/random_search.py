"""Random search: each group's device drawn on its own, evenly among those that can run it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from device_placement.agents.recording import RecordingEvaluator
from device_placement.agents.report import finish
from device_placement.agents.runs import Run, SearchConfig, resumed
from device_placement.envs.coarsening import CoarseGraph


@dataclass(frozen=True)
class RandomConfig(SearchConfig):
    """What a random search is told."""


def search_randomly(config: RandomConfig) -> int:
    """Evaluate random placements until the budget is spent, then print the table.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.
    """
    config = resumed(config)
    interrupted = False
    with Run(config, "random") as run:
        try:
            sample_placements(run.recorder, config.seed)
        except KeyboardInterrupt:
            interrupted = True
        print(run.summary(interrupted))
        if config.rounds and not interrupted:
            print("Measuring the contenders anew, in turns ...\n")
            print(finish(run, {"best found": list(run.recorder.best)}))
    return 130 if interrupted else 0


def sample_placements(recorder: RecordingEvaluator, seed: int) -> None:
    """Evaluate the singles, then random placements, until the budget is spent.

    Placements made before, in a run that is resumed, are drawn again and cost nothing.
    """
    generator = np.random.default_rng(seed)
    recorder.evaluate_singles()
    while not recorder.spent:
        recorder.evaluate(random_assignment(recorder.coarse, generator))


def random_assignment(coarse: CoarseGraph, generator: np.random.Generator) -> list[int]:
    """(num_groups,) device numbers, drawn evenly among the supported ones."""
    scores = generator.random(coarse.supported.shape)
    best = np.where(coarse.supported, scores, -1.0).argmax(axis=1)
    return [int(device) for device in best]
