"""What costs are believed to be before anything is timed: a Gaussian process on logarithms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.execution.costs import Costs
from device_placement.envs.features import group_features
from device_placement.envs.graph import Float64

# Variances of the logarithm of a group's cost on a device. Groups that look alike in their
# features are believed to be alike in what they cost on every device, and on each.
ALIKE, ALIKE_ON_DEVICE = 1.0, 1.0
OWN, OWN_ON_DEVICE, DEVICE = 0.2, 0.3, 0.3
# Variances of the logarithms of latencies and of times per byte: of what all links have in
# common, and of each link's own.
LINKS, LINK = 1.5, 0.5
EVEN = 0.05  # of a device's time that is believed to be spread evenly over the groups
JITTER = 1e-8  # on the diagonal, so that the covariance has a Cholesky factor


@dataclass(frozen=True)
class Scale:
    """The orders of magnitude of costs."""

    singles: Float64  # (num_devices,) what all groups together cost on a device
    latency: float = 1e-5
    per_byte: float = 1e-10


@dataclass(frozen=True)
class CostPrior:
    """Logarithms of costs, in the order of `flatten_costs`, jointly Gaussian."""

    mean: Float64  # (num_terms,)
    factor: Float64  # (num_terms, num_terms) lower Cholesky factor of their covariance


def make_prior(coarse: CoarseGraph, costs: Costs, scale: Scale) -> CostPrior:
    """The prior of a graph's costs.

    A group's share of a device's time is believed to be its share of the FLOPs and of the bytes
    that it reads and writes, up to a factor: a Gaussian process over the groups' features
    (Rasmussen and Williams, 2006, chapter 2), so that a time tells something of groups alike.

    Args:
        coarse: the groups.
        costs: of the same groups; only what is no time is looked at.
        scale: the orders of magnitude.
    """
    num_devices = costs.num_devices
    same, each = np.ones((num_devices, num_devices)), np.eye(num_devices)
    own = np.eye(costs.num_groups)
    alike = _kernel(group_features(coarse).astype(np.float64))
    groups = np.kron(ALIKE * alike + OWN * own, same)
    groups += np.kron(ALIKE_ON_DEVICE * alike + OWN_ON_DEVICE * own + DEVICE, each)
    links = LINKS + LINK * np.eye(num_devices**2)
    covariance = scipy.linalg.block_diag(groups, links, links)
    covariance += JITTER * np.eye(len(covariance))
    mean = np.concatenate(
        [
            np.log(_shares(coarse, costs)[:, None] * scale.singles).ravel(),
            np.full(num_devices**2, math.log(scale.latency)),
            np.full(num_devices**2, math.log(scale.per_byte)),
        ]
    )
    factor = scipy.linalg.cholesky(covariance, lower=True, check_finite=False)
    return CostPrior(mean, factor)


def _kernel(features: Float64) -> Float64:
    """(num_groups, num_groups) exp(-squared distance / median squared distance)."""
    scaled = features / np.maximum(features.std(axis=0), 0.1)
    squares = (scaled**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * scaled @ scaled.T, 0.0)
    apart = distance[distance > 1e-9]
    return np.asarray(np.exp(-distance / (np.median(apart) if apart.size else 1.0)))


def _shares(coarse: CoarseGraph, costs: Costs) -> Float64:
    """(num_groups,) shares of the whole, summing to 1."""
    flops, moved = np.zeros(costs.num_groups), costs.group_bytes.copy()
    np.add.at(flops, coarse.op_group, coarse.graph.flops)
    np.add.at(moved, costs.tensor_group, costs.tensor_bytes)
    np.add.at(moved, costs.reader, np.repeat(costs.tensor_bytes, np.diff(costs.reader_start)))
    parts = [part / part.sum() for part in (flops, moved) if part.sum() > 0]
    shares = sum(parts, np.full(costs.num_groups, EVEN / costs.num_groups))
    return np.asarray(shares / shares.sum())
