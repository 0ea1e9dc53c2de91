"""Step 4: plans of the profile first, then posterior sampling with it, until the time is spent."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from device_placement.agents.optimizing.clock import Clock, TimedBudget, minutes
from device_placement.agents.optimizing.config import OptimizeConfig
from device_placement.agents.optimizing.profiling import FittedProfile
from device_placement.agents.optimizing.verdict import Prediction
from device_placement.agents.placers.posterior_sampling.placer import PosteriorSampling
from device_placement.agents.runs.run import Run
from device_placement.envs.evaluation import Evaluation, Evaluator
from device_placement.envs.measuring.compare import whole_model_assignments

SAMPLES = 8  # of the pretrained policy, in addition to its greedy placement
REACHED = 1e-2  # relative: how near a proven bound a measured time counts as there


class OptimizeRun(Run):
    """Run of an optimization, which the clock ends.

    Args:
        config: the settings.
    """

    def __init__(self, config: OptimizeConfig) -> None:
        self.timed = TimedBudget()
        super().__init__(config, "optimize", shows_costs=True, budget=self.timed)
        self._clock: Clock | None = None
        self._bound_s, self._best_s = 0.0, math.inf
        self._line: tqdm[Any] | None = None

    def __enter__(self) -> OptimizeRun:
        return self

    @contextlib.contextmanager
    def until(self, deadline: float, bound_s: float, clock: Clock) -> Iterator[None]:
        """Let the budget end at a time, or at a bound, and show what was found meanwhile.

        Args:
            deadline: on `time.monotonic`.
            bound_s: in seconds; 0: none is known.
            clock: of the optimization.
        """
        self.timed.deadline, self.timed.bound_reached = deadline, False
        self.timed.num_requests = 0
        self._clock, self._bound_s = clock, bound_s
        self._best_s = math.inf
        self._line = line = tqdm(bar_format="{desc}", leave=False, disable=None)
        try:
            yield
        finally:
            line.close()
            self._line = self._clock = None

    def _show(self, _: Evaluation) -> None:
        if self._line is None or self._clock is None:
            return
        best_s, number = self.models[0].recorder.best_s, self.budget.num_distinct
        if best_s <= self._bound_s * (1 + REACHED):
            self.timed.bound_reached = True
        best = f"best {1e3 * best_s:.3f} ms"
        if best_s < self._best_s:
            self._best_s = best_s
            with tqdm.external_write_mode():
                self._clock.say(f"  placement {number}: {best}")
        left = minutes(max(0.0, self.timed.deadline - time.monotonic()))
        self._line.set_description_str(f"{number} placements, {best}, {left} of the search left")


def search(run: OptimizeRun, fitted: FittedProfile, prediction: Prediction, seed: int) -> str:
    """Evaluate plans of the profile, then search with it; return why it ended.

    Args:
        run: its budget ends the search.
        fitted: the profile.
        prediction: has the best plan for it.
        seed: of all random choices.
    """
    recorder = run.models[0].recorder
    recorder.evaluate(prediction.plan)  # however little time is left
    whole = whole_model_assignments(recorder.coarse).values()
    first = [*recorder.record, *fitted.tried, *whole, *_pretrained(recorder, fitted, seed)]
    placer = PosteriorSampling(
        profile=fitted.known_costs(recorder.coarse), first=tuple(dict.fromkeys(first))
    )
    placer.place(recorder, run.budget.limit, seed)
    if run.timed.bound_reached:
        return "the bound of the profile was reached"
    if time.monotonic() >= run.timed.deadline:
        return "the time was spent"
    return "rounds brought no improvement any more"


def _pretrained(evaluator: Evaluator, fitted: FittedProfile, seed: int) -> list[tuple[int, ...]]:
    """Return what the pretrained policy proposes first, and samples, on the profile's costs."""
    # Imports torch, which takes seconds.
    from device_placement.agents.placers.pretrained.placer import (
        PretrainedPolicy,
        UnfamiliarProblemWarning,
        distinct_samples,
        one_thread,
    )

    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfamiliarProblemWarning)  # others are tried, too
        policy = PretrainedPolicy.load("", evaluator, fitted.profile, seed)
        drawn = distinct_samples(policy, SAMPLES).tolist()
        return [tuple(policy.first()), *map(tuple, drawn)]
