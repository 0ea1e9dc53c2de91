"""Posterior-sampling placer: sample costs, plan with them, evaluate the plan, update.

This is model-based reinforcement learning (Strens, ICML 2000; Osband, Russo and Van Roy,
NeurIPS 2013): costs are sampled from the posterior, a search finds the best placement under them,
and its true time updates the posterior.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from device_placement.agents.placers.base import PlacerResult, Trace, check_options
from device_placement.agents.placers.neighbourhoods import neighbourhood_search, windows
from device_placement.agents.placers.parts_apart import parts_apart
from device_placement.agents.placers.posterior_sampling.posterior import Posterior, PosteriorSample
from device_placement.agents.placers.search_space import Choice, SearchSpace
from device_placement.agents.placers.starts import STARTS
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.costs import Costs, free_costs, without_times
from device_placement.envs.errors import choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.known_costs import find_costs
from device_placement.envs.simulation.profile import HardwareProfile

MOVES = 8  # most windows of a random placement that are on other devices
ELITE = 10  # of the fastest so far, from which a plan may start
WORTH = 1e-3  # relative: a plan that is expected to save less is not evaluated
NOTHING_NEW = 3  # a round that evaluates no plan counts as this many failed rounds
MOST_WITH_PROFILE = 4  # plans per round
LARGE = 1500  # matrices on which several threads help
MAX_DOUBLINGS = 7  # of the batches


@dataclass(frozen=True)
class PosteriorSampling:
    """Posterior sampling: fits costs to all times so far, and evaluates the best plans for them.

    It starts with the singles and with random placements of whole windows of groups. In each
    round the first plan is for the most probable costs, the others for costs drawn from the
    posterior. It also infers which schedule the times follow and, with a limit on the outputs'
    error, what each group adds to that. Of `dataflow` it has no model unless a profile predicts it;
    `concurrent` comes nearest to it. It ends before the budget is spent when rounds bring no
    improvement.

    Raises:
        DevicePlacementError: when an option is out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> PosteriorSampling().place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    explore: int = 20
    """Placements, singles included, before the first plan."""
    proposals: int = 10
    """Plans per round."""
    batches: int = 1
    """Batches of random moves without success after which a plan ends; doubles when rounds bring
    no improvement."""
    patience: int = 24
    """Rounds in a row without improvement after which the search ends; one whose plans are all
    known counts as three."""
    start: str = "single"
    """single: random placements near the best single; pretrained: also 16 placements of the
    pretrained policy, which are part of those before the first plan."""
    profile: str | HardwareProfile | KnownCosts = ""
    """If placements are measured: a profile, its file, or auto (one profiled run per device), whose
    costs are the prior. Then nothing is explored before the first plan, and a round has at most
    four plans, as each of them may correct the profile."""
    first: tuple[tuple[int, ...], ...] = ()
    """Placements to evaluate after the singles, as far as the budget goes."""

    def __post_init__(self) -> None:
        check_options(
            self,
            explore=(0, math.inf),
            proposals=(1, math.inf),
            batches=(1, math.inf),
            patience=(1, math.inf),
        )
        choose("start", self.start, STARTS)

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        search = _Search(self, evaluator, budget, seed)
        with one_blas_thread(search.costs.num_groups * search.costs.num_devices):
            return search.run()


class _Search:
    """One run of `PosteriorSampling`."""

    def __init__(
        self, options: PosteriorSampling, evaluator: Evaluator, budget: int, seed: int
    ) -> None:
        self.options = options
        self.trace, self.space = Trace(evaluator, budget), SearchSpace.of(evaluator)
        self.generator = np.random.default_rng(seed)
        self.spans = windows(self.space.num_units)
        self.costs = _frame(evaluator)
        self.evaluator, self.seed = evaluator, seed
        self.known = _known_costs(options.profile, evaluator)
        most = options.proposals if self.known is None else MOST_WITH_PROFILE
        self._proposals = min(options.proposals, most)
        self.idle = 0  # rounds without a better placement

    def run(self) -> PlacerResult:
        """Explore, then plan until nothing improves; return the result."""
        start = STARTS[self.options.start]
        best, _ = start(self.trace, self.space, self.generator, self.evaluator, self.seed)
        first = [*parts_apart(self.evaluator, self.space), *self.options.first]
        self.trace.prefetch(first)
        for placement in first:
            if not self.trace.spent:
                self.trace.evaluate(placement)
        tries = 0
        explore = self.options.explore if self.known is None else 0
        while len(self.trace.evaluations) < explore and not self.trace.spent:
            self._try(self._scattered(best, MOVES))
            tries += 1
            if tries >= 4 * self.options.explore:  # fewer exist
                break
        posterior = Posterior(self.trace.recorder.coarse, self.costs, self.known)
        while not self.trace.spent and self.idle < self.options.patience:
            posterior.learn(self.trace.evaluations)
            before_s = self._best_s()
            new = self._round(posterior)
            if not new:
                for _ in range(self.options.proposals):
                    self._try(self._scattered(self._known()[0], 2))
            if self._best_s() < before_s * (1 - WORTH):
                self.idle = 0
            else:
                self.idle += 1 if new else NOTHING_NEW
        return self.trace.result()

    def _round(self, posterior: Posterior) -> bool:
        """Evaluate the promising plans of a round; return whether any was new."""
        known = self._known()
        plans = list[Choice]()
        for number in range(self._proposals):
            sample = posterior.draw(self.generator) if number else posterior.expect()
            rank = 0 if number % 2 == 0 else self.generator.integers(len(known))
            plan = self._plan(sample, known[rank])
            best_s, plan_s = sample.times(np.array([known[0], plan])[:, self.space.unit])
            if plan_s < best_s * (1 - WORTH):
                plans.append(plan)
        self.trace.prefetch(map(self.space.assignment, plans))
        return sum(map(self._try, plans)) > 0

    def _plan(self, sample: PosteriorSample, start: Choice) -> Choice:
        """Search for the best choice in a sample."""
        unit = self.space.unit
        alone = np.array_equal(unit, np.arange(self.space.num_units))  # each group is a unit
        found, _ = neighbourhood_search(
            sample.times if alone else lambda choices: sample.times(choices[:, unit]),
            start,
            self.space.allowed,
            self.generator,
            self.options.batches * 2 ** min(self.idle // NOTHING_NEW, MAX_DOUBLINGS),
        )
        return found

    def _try(self, choice: Choice) -> bool:
        """Evaluate a choice unless the budget is spent; return whether it was new."""
        before = len(self.trace.evaluations)
        if not self.trace.spent:
            self.trace.evaluate(self.space.assignment(choice))
        return len(self.trace.evaluations) > before

    def _known(self) -> list[Choice]:
        """Return the fastest choices so far, the best first."""
        times = {key: one.time_s for key, one in self.trace.evaluations.items() if one.valid}
        best = sorted(times, key=times.__getitem__)[:ELITE]
        return [np.array(key)[self.space.first] for key in best]

    def _best_s(self) -> float:
        """Return the best time requested so far; a repeated run's recorder knows later ones."""
        times = (one.time_s for one in self.trace.evaluations.values() if one.valid)
        return min(times, default=math.inf)

    def _scattered(self, choice: Choice, most: int) -> Choice:
        """Return the choice with up to `most` random windows on random devices."""
        for _ in range(self.generator.integers(1, most + 1)):
            span = self.spans[self.generator.integers(len(self.spans))]
            device = self.generator.integers(self.space.allowed.shape[1])
            choice = np.where(span & self.space.allowed[:, device], device, choice)
        return choice


@contextlib.contextmanager
def one_blas_thread(size: int) -> Iterator[None]:
    """Leave small matrices to one thread, as several only wait for each other.

    Args:
        size: of the square matrices.
    """
    if size > LARGE:
        yield
        return
    with threadpool_limits(1, "blas"):
        yield


def _known_costs(
    profile: str | HardwareProfile | KnownCosts, evaluator: Evaluator
) -> KnownCosts | None:
    """Return the costs of a profile; None without one."""
    if isinstance(profile, KnownCosts):
        return profile
    return find_costs(evaluator, profile) if profile else None


def _frame(evaluator: Evaluator) -> Costs:
    """Return costs without times: only tensors, memories and colours."""
    costs = evaluator.costs
    if costs is None:
        return free_costs(evaluator.coarse, evaluator.devices)
    return without_times(costs)
