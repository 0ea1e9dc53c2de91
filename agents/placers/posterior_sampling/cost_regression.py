"""Bayesian regression of log costs on the times of placements, and the prior of the costs."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.linalg
import scipy.optimize

from device_placement.agents.placers.posterior_sampling.design_matrix import contributions
from device_placement.envs.arrays import Float64, UInt8
from device_placement.envs.cost_features import KnownCosts
from device_placement.envs.costs import Costs
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.features import group_features

ITERATIONS = 8  # of Gauss-Newton at most
CORRECTIONS = 15  # of a draw, in steps of L-BFGS
HALVINGS = 6  # of a step that does not help
LARGEST_STEP = 3.0  # of the logarithm of a cost
RANGE = 40.0  # of the logarithm of a cost, up and down from the prior's mean
NOISE = 1e-3, 0.3  # smallest and largest assumed relative standard deviation of a time
CONVERGED = 1e-4  # relative, of the loss


@dataclass(frozen=True)
class Observations:
    """Times of placements, or other quantities that are sums of costs."""

    placements: UInt8  # (num_observations, num_groups)
    logarithm: Float64  # (num_observations,) of the time
    variance: Float64  # (num_observations,) of its logarithm, as far as it is known

    def __len__(self) -> int:
        return len(self.logarithm)


@dataclass(frozen=True)
class _Problem:
    """Fit of costs in white coordinates: near `centre`, explaining `logarithm`."""

    placements: UInt8  # (num_observations, num_groups)
    logarithm: Float64  # (num_observations,)
    deviation: Float64  # (num_observations,) of the noise
    centre: Float64  # (num_terms,)


@dataclass(frozen=True)
class _Point:
    """Costs, and how well they explain the observations."""

    white: Float64  # (num_terms,)
    shares: Float64  # (num_observations, num_terms) of each cost in the time
    residual: Float64  # (num_observations,) in units of the noise
    loss: float  # minus the log probability of the costs and observations


@dataclass(frozen=True)
class _Known:
    """Gaussian around the most probable costs."""

    problem: _Problem
    point: _Point
    factor: Float64  # (num_terms, num_terms) lower Cholesky factor of the precision
    rows: Float64  # (num_observations, num_terms) the derivative, in units of the noise

    def solve(self, vector: Float64, trans: Literal[0, 1]) -> Float64:
        """Solve a triangular system with the factor or its transpose, and return the solution."""
        # LAPACK itself, as SciPy's wrappers take longer than a small system.
        found, info = scipy.linalg.lapack.dtrtrs(self.factor, vector, lower=1, trans=trans)
        assert info == 0, info
        return np.asarray(found)


class CostPosterior:
    """Posterior of the costs under one schedule, given the times of some placements.

    The logarithm of a time is modelled as that of the sum of its terms, with Gaussian noise.
    Gauss-Newton steps find the most probable costs; around them the posterior is approximated
    by a Gaussian (Laplace's approximation), and the noise is chosen to make the times most
    probable (MacKay, Neural Computation 1992). In white coordinates the prior is standard normal.

    Args:
        prior: of the costs.
        costs: of the same groups; times in it are ignored.
        schedule: a name of `COUNTS`.
    """

    def __init__(self, prior: CostPrior, costs: Costs, schedule: str) -> None:
        self.prior = prior
        self.schedule = schedule
        self.surprise = math.inf  # minus the log probability of the data, up to a constant
        self.num_fits = 0
        self.noise = 0.02  # standard deviation of the logarithm of a time
        self._frame = costs
        self._runs = np.isfinite(costs.compute_s)
        self._all_run = bool(self._runs.all())
        self._apart = 1.0 - np.eye(costs.num_devices)
        self._white = np.zeros_like(prior.mean)  # the most probable costs
        self._known: _Known | None = None

    @property
    def costs(self) -> Costs:
        """The most probable costs."""
        return self._as_costs(self._white)

    def sample(self, generator: np.random.Generator) -> Costs:
        """Draw costs from the posterior.

        Noise is added to the observations and the prior, and the costs are fitted again, starting
        from the Gaussian's solution (randomise, then optimise: Bardsley et al., SIAM J. Sci.
        Comput. 2014), in coordinates in which the Gaussian is a standard normal.
        """
        centre = generator.standard_normal(self._white.size)
        if (known := self._known) is None:
            return self._as_costs(centre)
        noise = generator.standard_normal(len(known.point.residual))
        problem = dataclasses.replace(
            known.problem,
            logarithm=known.problem.logarithm + noise * known.problem.deviation,
            centre=centre,
        )

        def loss(draw: Float64) -> tuple[float, Float64]:
            white = self._white + known.solve(draw, trans=1)
            point = self._look(white, problem)
            gradient = white - centre - self._pull(point, problem)
            return point.loss, known.solve(gradient, trans=0)

        target = known.rows.T @ (known.point.residual + noise + known.rows @ self._white) + centre
        start = known.solve(target, trans=0) - known.factor.T @ self._white
        found, _, _ = scipy.optimize.fmin_l_bfgs_b(loss, start, maxiter=CORRECTIONS)
        return self._as_costs(self._white + known.solve(found, trans=1))

    def fit(self, seen: Observations) -> None:
        """Fit the costs to these observations and the prior only."""
        deviation = np.sqrt(self.noise**2 + seen.variance)
        centre = np.zeros_like(self._white)
        problem = _Problem(seen.placements, seen.logarithm, deviation, centre)
        point = self._minimise(problem)
        self._white = point.white
        self.num_fits += 1
        white, factor, rows = self._newton(point, problem)
        self._known = _Known(problem, point, factor, rows)
        target = point.residual + rows @ point.white
        misfit = 0.5 * float(target @ (target - rows @ white))
        self.surprise = misfit + float(np.log(np.diag(factor)).sum() + np.log(deviation).sum())
        self._settle(point, factor, deviation)

    def _settle(self, point: _Point, factor: Float64, deviation: Float64) -> None:
        """Set the noise of the next fit to what the costs leave unexplained."""
        inverse, _ = scipy.linalg.lapack.dpotri(factor, lower=True)
        left = float(len(deviation) - len(factor) + np.diag(inverse).sum())
        error = point.residual * deviation
        estimate = math.sqrt(float(error @ error) / max(left, 1e-9))
        self.noise = float(np.clip(math.sqrt(estimate * self.noise), *NOISE))

    def _minimise(self, problem: _Problem) -> _Point:
        """Run Gauss-Newton from the most probable costs so far, halving steps that do not help."""
        point = self._look(self._white, problem)
        for _ in range(ITERATIONS):
            step = self._newton(point, problem)[0] - point.white
            largest = float(np.abs(self.prior.factor @ step).max())
            scale = min(1.0, LARGEST_STEP / max(largest, 1e-12))
            for _ in range(HALVINGS):
                new = self._look(point.white + scale * step, problem)
                if new.loss < point.loss:
                    break
                scale /= 2
            else:
                return point
            gain, point = point.loss - new.loss, new
            if gain < CONVERGED * point.loss:
                break
        return point

    def _look(self, white: Float64, problem: _Problem) -> _Point:
        parts = contributions(self._as_costs(white), problem.placements, self.schedule)
        total = parts.sum(axis=1)
        parts /= total[:, None]
        residual = (problem.logarithm - np.log(total)) / problem.deviation
        away = white - problem.centre
        return _Point(white, parts, residual, 0.5 * float(residual @ residual + away @ away))

    def _pull(self, point: _Point, problem: _Problem) -> Float64:
        """Return minus the gradient of the observations' loss, (num_terms,)."""
        return np.asarray(
            (point.shares.T @ (point.residual / problem.deviation)) @ self.prior.factor
        )

    def _newton(self, point: _Point, problem: _Problem) -> tuple[Float64, Float64, Float64]:
        """Return the best costs of the linearised fit, their precision's factor, the derivative."""
        rows = (point.shares / problem.deviation[:, None]) @ self.prior.factor
        precision = rows.T @ rows
        precision[np.diag_indices_from(precision)] += 1.0
        factor = scipy.linalg.cholesky(precision, lower=True, check_finite=False)
        target = rows.T @ (point.residual + rows @ point.white)
        return scipy.linalg.cho_solve((factor, True), target, check_finite=False), factor, rows

    def _as_costs(self, white: Float64) -> Costs:
        change = np.clip(self.prior.factor @ white, -RANGE, RANGE)
        values = np.exp(self.prior.mean + change)
        groups, devices = self._runs.shape
        compute_s = values[: groups * devices].reshape(groups, devices)
        links = values[groups * devices :].reshape(2, devices, devices) * self._apart
        if not self._all_run:
            compute_s = np.where(self._runs, compute_s, np.inf)
        return self._frame.with_times(compute_s, links[0], links[1])


# Variances of the logarithm of a group's cost on a device. Groups with similar features are
# assumed to have similar costs, over all devices and on each.
ALIKE, ALIKE_ON_DEVICE = 1.0, 1.0
OWN, OWN_ON_DEVICE, DEVICE = 0.2, 0.3, 0.3
# Variances of the logarithms of latencies and of times per byte: of the part common to all
# links, and of each link's own part.
LINKS, LINK = 1.5, 0.5
# Shares of these variances that remain where a profile knows the costs.
KNOWN_COST, KNOWN_LINK = 0.03, 0.15
LEAST_COST = 1e-4  # share of a device's mean cost: a known cost is at least that
EVEN = 0.05  # of a device's time that is assumed to be spread evenly over the groups
JITTER = 1e-8  # on the diagonal, so that the covariance has a Cholesky factor


@dataclass(frozen=True)
class Scale:
    """Orders of magnitude of costs."""

    singles: Float64  # (num_devices,) cost of all groups together on each device
    latency: float = 1e-5
    per_byte: float = 1e-10


@dataclass(frozen=True)
class CostPrior:
    """Joint Gaussian of the logarithms of costs, in the order of `flatten_costs`."""

    mean: Float64  # (num_terms,)
    factor: Float64  # (num_terms, num_terms) lower Cholesky factor of their covariance


def make_prior(
    coarse: CoarseGraph, costs: Costs, scale: Scale, known: KnownCosts | None = None
) -> CostPrior:
    """Return the prior of a graph's costs.

    A group's share of a device's time is assumed to be its share of the FLOPs and of the bytes
    that it reads and writes, up to a factor: a Gaussian process over the groups' features
    (Rasmussen and Williams, 2006, chapter 2), so that a time informs about similar groups. Where a
    profile knows costs, they are the means, and the variances are small.

    Args:
        coarse: the groups.
        costs: of the same groups; times in it are ignored.
        scale: the orders of magnitude.
        known: costs of a profile; None: no costs are known.
    """
    num_devices = costs.num_devices
    same, each = np.ones((num_devices, num_devices)), np.eye(num_devices)
    own = np.eye(costs.num_groups)
    alike = _kernel(group_features(coarse).astype(np.float64))
    groups = np.kron(ALIKE * alike + OWN * own, same)
    groups += np.kron(ALIKE_ON_DEVICE * alike + OWN_ON_DEVICE * own + DEVICE, each)
    links = LINKS + LINK * np.eye(num_devices**2)
    compute_s = _shares(coarse, costs)[:, None] * scale.singles
    moves = np.array([np.full((num_devices,) * 2, one) for one in (scale.latency, scale.per_byte)])
    if known is not None:
        groups *= KNOWN_COST
        compute_s = positive_costs(known.costs, compute_s)
        if known.knows_transfers:
            links *= KNOWN_LINK
            moves = np.array(positive_links(known.costs, scale))
    covariance = scipy.linalg.block_diag(groups, links, links)
    covariance += JITTER * np.eye(len(covariance))
    mean = np.log(np.concatenate([compute_s.ravel(), moves.ravel()]))
    factor = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
    return CostPrior(mean, factor)


def positive_costs(known: Costs, otherwise: Float64) -> Float64:
    """Return the known times of groups, (num_groups, num_devices), each above 0.

    Args:
        known: of a profile.
        otherwise: (num_groups, num_devices) for groups that a device can't run.
    """
    runs = np.isfinite(known.compute_s)
    usual = np.where(runs, known.compute_s, 0.0).mean(axis=0)
    least = np.maximum(LEAST_COST * usual, 1e-12)
    return np.where(runs, np.maximum(known.compute_s, least), otherwise)


def positive_links(known: Costs, scale: Scale) -> tuple[Float64, Float64]:
    """Return the known latencies and times per byte, (num_devices, num_devices), each above 0.

    A fit finds none where it can't tell the two apart; a tenth of the usual ones is then assumed.
    """
    latency_s, s_per_byte = known.latency_s, known.s_per_byte
    return (
        np.where(latency_s > 0, latency_s, scale.latency / 10),
        np.where(s_per_byte > 0, s_per_byte, scale.per_byte / 10),
    )


def _kernel(features: Float64) -> Float64:
    """Return exp(-squared distance / median squared distance), (num_groups, num_groups)."""
    scaled = features / np.maximum(features.std(axis=0), 0.1)
    squares = (scaled**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0.0)
    apart = distance[distance > 1e-9]
    return np.asarray(np.exp(-distance / (np.median(apart) if apart.size else 1.0)))


def _shares(coarse: CoarseGraph, costs: Costs) -> Float64:
    """Return each group's share of the whole, (num_groups,), summing to 1."""
    flops, moved = np.zeros(costs.num_groups), costs.group_bytes.copy()
    np.add.at(flops, coarse.op_group, coarse.graph.flops)
    np.add.at(moved, costs.tensor_group, costs.tensor_bytes)
    np.add.at(moved, costs.reader, np.repeat(costs.tensor_bytes, np.diff(costs.reader_start)))
    parts = [part / part.sum() for part in (flops, moved) if part.sum() > 0]
    shares = sum(parts, np.full(costs.num_groups, EVEN / costs.num_groups))
    return np.asarray(shares / shares.sum())
