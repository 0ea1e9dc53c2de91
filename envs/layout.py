"""Where the groups lie in a picture: levels left to right, folded into rows like a snake."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.graph import Bool, Float64

Int = NDArray[np.int64]

COLUMN, ROW_GAP, SMALLEST_PICTURE = 1.25, 1.45, 4.5  # the unit is the distance of two lanes
SMALLEST, LARGEST = 0.5, 0.84  # diameter of a group
DECADES = 4  # of FLOPs between the two


@dataclass(frozen=True)
class Layout:
    """Coordinates of the slots: first the groups, then bends that lead edges past groups."""

    xy: Float64  # (num_slots, 2)
    rightwards: Bool  # (num_slots,) which way the data flows there
    radius: Float64  # (num_groups,)
    routes: tuple[tuple[int, ...], ...]  # (num_edges,) slots from producer to consumer
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def lay_out(coarse: CoarseGraph, aspect: float) -> Layout:
    """Lay a coarse graph out for a picture that is `aspect` times as wide as high.

    Layers with bends on long edges, as Sugiyama et al. (1981, doi:10.1109/TSMC.1981.4308636),
    in as many rows as make the groups largest; every second row runs backwards.
    """
    level, routes = _route(coarse)
    lane = _assign_lanes(level, routes, coarse.num_groups)
    folds = [_fold(level, lane, rows) for rows in range(1, math.isqrt(4 * int(level.max())) + 2)]
    xy, row = min(folds, key=lambda fold: _height(fold[0], aspect))
    half = np.array([aspect, 1]) * _height(xy, aspect) / 2
    middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
    (left, bottom), (right, top) = (middle - half).tolist(), (middle + half).tolist()
    flops = np.bincount(coarse.op_group, coarse.graph.flops, minlength=coarse.num_groups)
    decades = np.log10(np.maximum(flops, 1) / max(flops.max(), 1))
    diameter = LARGEST + (LARGEST - SMALLEST) * np.maximum(decades / DECADES, -1)
    return Layout(xy, row % 2 == 0, diameter / 2, routes, (left, right), (bottom, top))


def curve(layout: Layout, before: int, after: int) -> Float64:
    """(31, 2) points of a curve that leaves and arrives along the flow, a cubic Bézier one."""
    ends = layout.xy[[before, after]]
    way = np.where(layout.rightwards[[before, after]], 1, -1)
    width, height = np.abs(ends[1] - ends[0])
    reach = width / 2 if way[0] == way[1] else 0.6 + height / (height + 4)  # or around the turn
    inner = ends + np.outer([way[0], -way[1]], [reach, 0])
    t = np.linspace(0, 1, 31)[:, None]
    outer = (1 - t) ** 3 * ends[0] + t**3 * ends[1]
    return np.asarray(outer + 3 * t * (1 - t) * ((1 - t) * inner[0] + t * inner[1]))


def arrow_head(layout: Layout, points: Float64, group: int) -> Float64:
    """(3, 2) corners of the head of a curve that ends in the circle of a group."""
    away = points - layout.xy[group]
    outside = away[np.hypot(*away.T) > layout.radius[group]]
    tip = outside[-1] * layout.radius[group] / np.hypot(*outside[-1])
    along = outside[-3] - outside[-1]
    along *= min(0.16, 0.016 * (layout.y_range[1] - layout.y_range[0])) / np.hypot(*along)
    side = np.array([-along[1], along[0]]) / 2
    return np.asarray(layout.xy[group] + tip + [0 * along, along + side, along - side])


def _height(xy: Float64, aspect: float) -> float:
    """The smallest height of a picture that shows everything, with a margin."""
    width, height = np.ptp(xy, axis=0).tolist()
    return float(max((width + 2.2) / aspect, height + 1.2, SMALLEST_PICTURE))


def _route(coarse: CoarseGraph) -> tuple[Int, tuple[tuple[int, ...], ...]]:
    """The level of each slot, and the slots along each edge: one on every level between.

    A level is the length of the longest path from a source; sources lie just before what
    they feed. The edges out of one group share their bends.
    """
    edges = sorted(coarse.edge_index.T.tolist())
    level = [0] * coarse.num_groups
    for producer, consumer in edges:
        level[consumer] = max(level[consumer], level[producer] + 1)
    for source in set(range(coarse.num_groups)) - {consumer for _, consumer in edges}:
        level[source] = min((level[v] for u, v in edges if u == source), default=1) - 1
    bends: dict[tuple[int, int], int] = {}
    routes = []
    for u, v in coarse.edge_index.T.tolist():
        between = [(u, at) for at in range(level[u] + 1, level[v])]
        slots = [bends.setdefault(bend, len(level) + len(bends)) for bend in between]
        routes.append((u, *slots, v))
    return np.array([*level, *(at for _, at in bends)]), tuple(routes)


def _assign_lanes(level: Int, routes: tuple[tuple[int, ...], ...], num_groups: int) -> Float64:
    """A lane for each slot, once per level: near the slot's producers and the middle."""
    from scipy.optimize import linear_sum_assignment  # here, as importing takes longer than running

    producers: list[list[int]] = [[] for _ in level]
    for route in routes:
        for before, after in pairwise(route):
            producers[after].append(before)
    lane = np.zeros(len(level))
    for at in range(int(level.max()) + 1):
        slots = np.flatnonzero(level == at)
        wanted = np.array([lane[producers[s]].mean() if producers[s] else 0 for s in slots])
        reach = len(slots) + int(np.abs(wanted).max())
        lanes = np.arange(-reach, reach + 1)
        weight = np.where(slots < num_groups, 2, 1)[:, None]
        cost = weight * ((lanes - wanted[:, None]) ** 2 + 0.1 * lanes**2 - 0.01 * lanes)
        lane[slots] = lanes[linear_sum_assignment(cost)[1]]
    return lane


def _fold(level: Int, lane: Float64, rows: int) -> tuple[Float64, Int]:
    """Coordinates and row of each slot when the levels are cut into so many rows."""
    length = -(-(int(level.max()) + 1) // rows)
    row, column = np.divmod(level, length)
    backwards = row % 2 == 1
    x = COLUMN * np.where(backwards, length - 1 - column, column)
    y = np.where(backwards, -lane, lane)
    top = 0.0
    for at in range(int(row.max()) + 1):
        mine = row == at
        y[mine] += top - y[mine].max()
        top = y[mine].min() - ROW_GAP
    return np.stack([x, y], axis=1), row
