"""Posterior of costs under each schedule, and of output errors, given a search's evaluations."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_placement.agents.placers.posterior_sampling.cost_regression import (
    CostPosterior,
    CostPrior,
    Observations,
    Scale,
    make_prior,
    positive_costs,
    positive_links,
)
from device_placement.agents.placers.posterior_sampling.design_matrix import COUNTS, flatten_costs
from device_placement.envs.arrays import Float64
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.costs import Costs, without_times
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.timing import MIN_SAMPLES
from device_placement.envs.simulation.schedule import schedule_times

WORK = 2e9  # observations * terms^2 of a fit; beyond this, only the fastest are used
DOUBT = 50.0  # log probability by which a schedule is less likely when it is given up
SIMPLER = 2.0  # log probability by which one must be more likely than a simpler one
TRIAL = 60  # observations before one is given up
MATURE = 5  # fits before that
ROUGH = 0.1  # relative standard deviation of a time of too few samples for an interval
ERRORS = "sequential"  # squared errors of groups add up, as their times do under it
NEGLIGIBLE = 1e-3  # of the largest: error that groups add on a device without any

Evaluations = Mapping[tuple[int, ...], Evaluation]


@dataclass(frozen=True)
class PosteriorSample:
    """Costs that may be true, and the times that follow from them."""

    costs: Costs
    schedule: str
    squared_errors: Costs | None = None  # what each group and move adds
    limit: float = math.inf  # smallest squared error that is not allowed
    profiled: ProfiledTimes | None = None  # corrects the schedule's times

    def times(self, placements: NDArray[np.integer]) -> Float64:
        """Return seconds, (batch,), of placements, (batch, num_groups); inf if not allowed."""
        times_s = schedule_times(self.costs, placements, self.schedule)
        if self.profiled is not None:
            times_s *= self.profiled.correction(placements, self.schedule)
        if self.squared_errors is not None:
            squares = schedule_times(self.squared_errors, placements, ERRORS)
            times_s[squares >= self.limit] = math.inf
        return times_s


@dataclass(frozen=True)
class ProfiledTimes:
    """Times that a profile predicts, and what they would be under a schedule of `COUNTS`.

    Those schedules know neither regions nor subgraphs. So a time is modelled as the profile's times
    the ratio by which learned costs differ from the profile's under the simpler schedule.
    """

    known: KnownCosts  # with every cost above 0
    plain: Costs  # the same without costs of regions and subgraphs

    @classmethod
    def of(cls, known: KnownCosts, scale: Scale) -> ProfiledTimes:
        """Return the times of known costs; transfers that they don't know are the usual ones."""
        costs = known.costs
        apart = 1.0 - np.eye(costs.num_devices)
        latency_s, s_per_byte = scale.latency * apart, scale.per_byte * apart
        if known.knows_transfers:
            latency_s, s_per_byte = (one * apart for one in positive_links(costs, scale))
        compute_s = positive_costs(costs, np.full_like(costs.compute_s, np.inf))
        timed = costs.with_times(compute_s, latency_s, s_per_byte)
        plain = without_times(costs).with_times(compute_s, latency_s, s_per_byte)
        return cls(dataclasses.replace(known, costs=timed), plain)

    def correction(self, placements: NDArray[np.integer], schedule: str) -> Float64:
        """Return the predicted time of each placement over that of a schedule, (batch,)."""
        predicted_s = schedule_times(self.known.costs, placements, self.known.schedule)
        with np.errstate(invalid="ignore"):
            ratio = predicted_s / schedule_times(self.plain, placements, schedule)
        return np.where(np.isfinite(ratio) & (ratio > 0), ratio, 1.0)


class Posterior:
    """Posterior of the costs under each schedule of `COUNTS`, and of what adds to the output error.

    Args:
        coarse: the groups.
        costs: of the same groups; times in it are ignored.
        known: costs of a profile, which are the prior; None: a broad one.

    >>> from device_placement.envs import make_evaluator
    >>> from device_placement.envs.costs import free_costs
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> some = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 0), (0, 0, 1, 1)]
    >>> posterior = Posterior(evaluator.coarse, free_costs(evaluator.coarse, evaluator.devices))
    >>> posterior.learn({one: evaluator.evaluate(one) for one in some})
    >>> ratio = posterior.expect().times(np.array(some)) / evaluator.evaluate_many(np.array(some))
    >>> bool(abs(ratio - 1).max() < 0.01)
    True
    """

    def __init__(self, coarse: CoarseGraph, costs: Costs, known: KnownCosts | None = None) -> None:
        self._coarse, self._costs, self._known = coarse, costs, known
        self._profiled: ProfiledTimes | None = None
        self._most = int(WORK / flatten_costs(costs).size ** 2) + 1
        self._prior: CostPrior | None = None
        self._schedules: dict[str, CostPosterior] = {}
        self._errors: CostPosterior | None = None
        self._limit = math.inf
        self._reconsider = 0  # observations at which given up schedules are tried again

    @property
    def schedule(self) -> str:
        """Simplest of the schedules that explain the observations best.

        When groups form a chain, for instance, `concurrent` equals `sequential`.
        """
        enough = min(one.surprise for one in self._schedules.values()) + SIMPLER
        likely = {name for name, one in self._schedules.items() if one.surprise <= enough}
        return next(name for name in COUNTS if name in likely)

    def learn(self, evaluations: Evaluations) -> None:
        """Fit the posterior to evaluations, at least one of which is valid."""
        self._learn_times(evaluations)
        self._learn_errors(evaluations)

    def expect(self) -> PosteriorSample:
        """Return the most probable costs."""
        errors = None if self._errors is None else self._errors.costs
        costs = self._schedules[self.schedule].costs
        return PosteriorSample(costs, self.schedule, errors, self._limit, self._profiled)

    def draw(self, generator: np.random.Generator) -> PosteriorSample:
        """Draw costs from the posterior under the schedule that explains best."""
        costs = self._schedules[self.schedule].sample(generator)
        errors = None if self._errors is None else self._errors.sample(generator)
        return PosteriorSample(costs, self.schedule, errors, self._limit, self._profiled)

    def _learn_times(self, evaluations: Evaluations) -> None:
        seen = _times_of(evaluations, self._most)
        if self._prior is None:
            scale = Scale(self._singles(evaluations, seen))
            if self._known is not None:
                self._profiled = ProfiledTimes.of(self._known, scale)
            self._prior = make_prior(self._coarse, self._costs, scale, self._known)
        if len(seen) >= self._reconsider:
            self._reconsider = max(TRIAL, 2 * len(seen))
            for name in COUNTS:
                if name not in self._schedules:
                    self._schedules[name] = CostPosterior(self._prior, self._costs, name)
        for name, posterior in self._schedules.items():
            posterior.fit(self._corrected(seen, name))
        if len(seen) >= TRIAL:
            likely = self._schedules[self.schedule].surprise + DOUBT
            self._schedules = {
                name: one
                for name, one in self._schedules.items()
                if one.surprise <= likely or one.num_fits < MATURE
            }

    def _corrected(self, seen: Observations, schedule: str) -> Observations:
        """Return the observations as the schedule alone would explain them."""
        if self._profiled is None:
            return seen
        ratio = self._profiled.correction(seen.placements, schedule)
        return dataclasses.replace(seen, logarithm=seen.logarithm - np.log(ratio))

    def _singles(self, evaluations: Evaluations, seen: Observations) -> Float64:
        """Return seconds, (num_devices,); the median of valid times if a single is invalid."""
        usual = math.exp(float(np.median(seen.logarithm)))
        keys = [(device,) * self._costs.num_groups for device in range(self._costs.num_devices)]
        found = [evaluations[key].time_s if key in evaluations else math.nan for key in keys]
        return np.where(np.isnan(found), usual, found)

    def _learn_errors(self, evaluations: Evaluations) -> None:
        """Fit the output errors, if some were too large."""
        known = _with_error(evaluations)
        refused = [one.output_error for one in known.values() if not one.valid]
        if not refused:
            return
        self._limit = min(refused) ** 2
        placements = np.array([*known], dtype=np.uint8)
        squares = np.array([one.output_error**2 for one in known.values()])
        if self._errors is None:
            self._errors = CostPosterior(self._error_prior(evaluations), self._costs, ERRORS)
        chosen = np.argsort(np.abs(np.log(squares / self._limit)), kind="stable")[: self._most]
        self._errors.fit(
            Observations(placements[chosen], np.log(squares[chosen]), np.zeros(chosen.size))
        )

    def _error_prior(self, evaluations: Evaluations) -> CostPrior:
        largest = max(one.output_error for one in _with_error(evaluations).values())
        squares = np.full(self._costs.num_devices, largest**2)
        for device in range(squares.size):
            single = evaluations.get((device,) * self._costs.num_groups)
            if single is not None and math.isfinite(single.output_error):
                squares[device] = single.output_error**2
        least = NEGLIGIBLE * float(squares.max())
        moved = max(float(self._costs.tensor_bytes.mean()), 1.0)
        scale = Scale(np.maximum(squares, least), least, least / moved)
        return make_prior(self._coarse, self._costs, scale)


def _with_error(evaluations: Evaluations) -> Evaluations:
    """Return the evaluations with a finite output error above 0."""
    return {key: one for key, one in evaluations.items() if 0 < one.output_error < math.inf}


def _times_of(evaluations: Evaluations, most: int) -> Observations:
    valid = {key: one for key, one in evaluations.items() if one.valid}
    fastest = sorted(valid, key=lambda key: valid[key].time_s)[:most]
    times_s = np.array([valid[key].time_s for key in fastest])
    low, high = np.array([valid[key].interval_s for key in fastest]).T
    spread = np.nan_to_num((high - low) / (2 * 1.96 * times_s))
    rough = np.array([ROUGH * _is_rough(valid[key]) for key in fastest])
    return Observations(np.array(fastest, dtype=np.uint8), np.log(times_s), spread**2 + rough**2)


def _is_rough(evaluation: Evaluation) -> bool:
    """Return whether it was cut short so soon that its interval says too little."""
    return evaluation.cut_short and len(evaluation.samples_s) < MIN_SAMPLES
