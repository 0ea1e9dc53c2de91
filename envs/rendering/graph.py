"""Picture of a placement on its coarse graph, and the layout of the graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from device_placement.envs.arrays import Bool, Float64, Int64, UInt8
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.rendering.style import (
    LIGHT,
    UNPLACED_COLOUR,
    device_colours,
    literal,
    new_figure,
)
from device_placement.envs.rendering.text import (
    checked_groups,
    computed_ops,
    count,
    headline,
    main_types,
    shares,
)

CROSSING_COLOUR, EDGE_COLOUR = "#1A1A1A", "#A8B0B8"
MAX_LABELLED = 20  # groups whose op types are written into the picture
LEGIBLE = 6.5  # points: smaller numbers are left out
WIDTH, HEIGHT, DPI = 12.8, 7.2, 100  # of a picture, in inches and pixels per inch
FRAME = (0.02, 0.09, 0.96, 0.82)  # left, bottom, width, height of the graph, as shares


def render_picture(
    coarse: CoarseGraph,
    devices: Sequence[str],
    assignment: Sequence[int],
    time_s: float,
    num_subgraphs: int,
) -> UInt8:
    """Return a picture of a placement on its coarse graph; arguments as `render_text`.

    The graph winds down the picture like a snake: data flows to the right in the first row,
    back to the left in the second, and so on. Groups are coloured by device and sized by
    the logarithm of their FLOPs; dark edges cross from one device to another.

    Returns:
        (720, 1280, 3) red, green and blue.

    Raises:
        DevicePlacementError: as `render_text`; also when matplotlib is not installed.
    """
    groups = checked_groups(coarse, devices, assignment)
    figure = new_figure(WIDTH, HEIGHT, dpi=DPI, facecolor="white", layout="none")
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    coordinates = lay_out(coarse, WIDTH * FRAME[2] / (HEIGHT * FRAME[3]))
    axes: Any = figure.add_axes(FRAME)
    axes.set(xlim=coordinates.x_range, ylim=coordinates.y_range)
    axes.axis("off")
    _draw_edges(axes, coordinates, groups)
    _draw_groups(axes, coordinates, coarse, devices, groups)
    text = headline(coarse, time_s, num_subgraphs)
    title: dict[str, Any] = {"x": 0.02, "y": 0.945, "va": "center"}
    figure.text(**title, s=literal(coarse.graph.name), size=17, weight="bold")
    figure.text(**title | {"x": 0.98, "ha": "right"}, s=text, size=14)
    _draw_legend(figure, coarse, devices, groups)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_edges(axes: Any, coordinates: Coordinates, groups: Sequence[int]) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    pieces: tuple[dict[tuple[int, int], Float64], ...] = ({}, {})
    tips: tuple[list[Float64], ...] = ([], [])
    for route in coordinates.routes:
        crosses = _crosses(groups[route[0]], groups[route[-1]])
        for piece in pairwise(route):
            pieces[crosses][piece] = curve(coordinates, *piece)
        tips[crosses].append(arrow_head(coordinates, pieces[crosses][piece], route[-1]))
    for kind, (colour, width) in enumerate(((EDGE_COLOUR, 1.2), (CROSSING_COLOUR, 1.7))):
        line: dict[str, Any] = {"colors": colour, "linewidths": width, "capstyle": "round"}
        curves = list(pieces[kind].values())
        axes.add_collection(LineCollection(curves, zorder=kind, **line))
        axes.add_collection(PolyCollection(tips[kind], facecolors=colour, zorder=kind))


def _draw_groups(
    axes: Any,
    coordinates: Coordinates,
    coarse: CoarseGraph,
    devices: Sequence[str],
    groups: Sequence[int],
) -> None:
    from matplotlib.collections import EllipseCollection

    colours = _colours(devices, groups)
    size, xy = 2 * coordinates.radius, coordinates.xy[: coarse.num_groups]
    style: dict[str, Any] = {"units": "xy", "offset_transform": axes.transData, "zorder": 2}
    style |= {"facecolors": colours, "edgecolors": "white", "linewidths": 0.8}
    axes.add_collection(EllipseCollection(size, size, np.zeros(len(size)), offsets=xy, **style))
    points = 72 * HEIGHT * FRAME[3] / (coordinates.y_range[1] - coordinates.y_range[0])  # per unit
    text = {"ha": "center", "va": "center", "zorder": 3}
    for group, ((x, y), width) in enumerate(zip(xy.tolist(), size.tolist(), strict=True)):
        font = min(0.42 * width * points, 13)
        if font >= LEGIBLE:
            ink = "black" if colours[group] in LIGHT else "white"
            axes.text(x, y, str(group), size=font, color=ink, **text)
        if coarse.num_groups <= MAX_LABELLED:
            kind = main_types(coarse, computed_ops(coarse, [group]))[0]
            font = min(1.8 * points / len(kind), 11)
            axes.text(x, y - width / 2 - 10 / points, literal(kind), size=font, **text)


def _draw_legend(
    figure: Any, coarse: CoarseGraph, devices: Sequence[str], groups: Sequence[int]
) -> None:
    from matplotlib.lines import Line2D

    order = [*range(len(devices)), *([-1] if -1 in groups else [])]
    dot: dict[str, Any] = {"marker": "o", "markersize": 10, "linestyle": "none"}
    handles = [Line2D([], [], color=colour, **dot) for colour in _colours(devices, order)]
    ends = np.asarray(groups)[coarse.edge_index].T.tolist()
    crosses = np.array([_crosses(*pair) for pair in ends], dtype=np.bool_)
    crossing = count(int(crosses.sum()), "crossing edge")
    megabytes = coarse.edge_bytes[crosses].sum() / 1e6
    handles.append(Line2D([], [], color=CROSSING_COLOUR, linewidth=1.6))
    labels = [*shares(coarse, devices, groups), f"{crossing}, {megabytes:.4g} MB"]
    columns = math.ceil(len(labels) / math.ceil(len(labels) / 4))
    style: dict[str, Any] = {"ncols": columns, "columnspacing": 1.8, "handletextpad": 0.6}
    style |= {"loc": "center", "bbox_to_anchor": (0.5, 0.045), "fontsize": 11}
    figure.legend(handles, list(map(literal, labels)), frameon=False, **style)


def _crosses(producer: int, consumer: int) -> bool:
    """Return whether data moves between the devices of two groups; False if one is unplaced."""
    return producer != consumer and min(producer, consumer) >= 0


def _colours(devices: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """Return the colour of each of some devices; -1: not placed."""
    known = [*device_colours(devices), UNPLACED_COLOUR]
    return [known[device] for device in chosen]


COLUMN, ROW_GAP, SMALLEST_PICTURE = 1.25, 1.45, 4.5  # the unit is the distance between two lanes
SMALLEST, LARGEST = 0.5, 0.84  # diameter of a group
DECADES = 4  # of FLOPs between the two


@dataclass(frozen=True)
class Coordinates:
    """Coordinates of the slots: first the groups, then bends that lead edges past groups."""

    xy: Float64  # (num_slots, 2)
    rightwards: Bool  # (num_slots,) whether data flows to the right
    radius: Float64  # (num_groups,)
    routes: tuple[tuple[int, ...], ...]  # (num_edges,) slots from producer to consumer
    x_range: tuple[float, float]
    y_range: tuple[float, float]


def lay_out(coarse: CoarseGraph, aspect: float) -> Coordinates:
    """Return the layout of a coarse graph for a picture `aspect` times as wide as high.

    It has layers with bends on long edges, as in Sugiyama et al. (1981,
    doi:10.1109/TSMC.1981.4308636), in the number of rows that makes the groups largest; every
    second row runs backwards.
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
    return Coordinates(xy, row % 2 == 0, diameter / 2, routes, (left, right), (bottom, top))


def curve(coordinates: Coordinates, before: int, after: int) -> Float64:
    """Return (31, 2) points of a cubic Bézier curve that leaves and arrives along the flow."""
    ends = coordinates.xy[[before, after]]
    way = np.where(coordinates.rightwards[[before, after]], 1, -1)
    width, height = np.abs(ends[1] - ends[0])
    reach = width / 2 if way[0] == way[1] else 0.6 + height / (height + 4)  # or around the turn
    inner = ends + np.outer([way[0], -way[1]], [reach, 0])
    t = np.linspace(0, 1, 31)[:, None]
    outer = (1 - t) ** 3 * ends[0] + t**3 * ends[1]
    return np.asarray(outer + 3 * t * (1 - t) * ((1 - t) * inner[0] + t * inner[1]))


def arrow_head(coordinates: Coordinates, points: Float64, group: int) -> Float64:
    """Return the (3, 2) corners of the head of a curve that ends in the circle of a group."""
    away = points - coordinates.xy[group]
    outside = away[np.hypot(*away.T) > coordinates.radius[group]]
    tip = outside[-1] * coordinates.radius[group] / np.hypot(*outside[-1])
    along = outside[-3] - outside[-1]
    along *= min(0.16, 0.016 * (coordinates.y_range[1] - coordinates.y_range[0])) / np.hypot(*along)
    side = np.array([-along[1], along[0]]) / 2
    return np.asarray(coordinates.xy[group] + tip + [0 * along, along + side, along - side])


def _height(xy: Float64, aspect: float) -> float:
    """Return the smallest height of a picture that shows everything, with a margin."""
    width, height = np.ptp(xy, axis=0).tolist()
    return float(max((width + 2.2) / aspect, height + 1.2, SMALLEST_PICTURE))


def _route(coarse: CoarseGraph) -> tuple[Int64, tuple[tuple[int, ...], ...]]:
    """Return the level of each slot, and the slots along each edge: one on every level between.

    A level is the length of the longest path from a source; sources are just before their
    first consumer. The edges out of one group share their bends.
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


def _assign_lanes(level: Int64, routes: tuple[tuple[int, ...], ...], num_groups: int) -> Float64:
    """Return a lane for each slot, unique in its level: near its producers and the middle."""
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


def _fold(level: Int64, lane: Float64, rows: int) -> tuple[Float64, Int64]:
    """Return coordinates and row of each slot when the levels are cut into `rows` rows."""
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
