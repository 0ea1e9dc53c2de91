"""A placement as a picture of the coarse graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.drawing import LIGHT, UNPLACED_COLOUR, device_colours, new_figure
from device_placement.envs.graph import Float64
from device_placement.envs.layout import Layout, arrow_head, curve, lay_out
from device_placement.envs.rendering import (
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
) -> NDArray[np.uint8]:
    """The placement as a picture of the coarse graph: arguments as `render_text`.

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
    layout = lay_out(coarse, WIDTH * FRAME[2] / (HEIGHT * FRAME[3]))
    axes: Any = figure.add_axes(FRAME)
    axes.set(xlim=layout.x_range, ylim=layout.y_range)
    axes.axis("off")
    _draw_edges(axes, layout, groups)
    _draw_groups(axes, layout, coarse, devices, groups)
    text = headline(coarse, time_s, num_subgraphs)
    title: dict[str, Any] = {"x": 0.02, "y": 0.945, "va": "center"}
    figure.text(**title, s=coarse.graph.name, size=17, weight="bold")
    figure.text(**title | {"x": 0.98, "ha": "right"}, s=text, size=14)
    _draw_legend(figure, coarse, devices, groups)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_edges(axes: Any, layout: Layout, groups: Sequence[int]) -> None:
    from matplotlib.collections import LineCollection, PolyCollection

    pieces: tuple[dict[tuple[int, int], Float64], ...] = ({}, {})
    tips: tuple[list[Float64], ...] = ([], [])
    for route in layout.routes:
        crosses = _crosses(groups[route[0]], groups[route[-1]])
        for piece in pairwise(route):
            pieces[crosses][piece] = curve(layout, *piece)
        tips[crosses].append(arrow_head(layout, pieces[crosses][piece], route[-1]))
    for kind, (colour, width) in enumerate(((EDGE_COLOUR, 1.2), (CROSSING_COLOUR, 1.7))):
        line: dict[str, Any] = {"colors": colour, "linewidths": width, "capstyle": "round"}
        curves = list(pieces[kind].values())
        axes.add_collection(LineCollection(curves, zorder=kind, **line))
        axes.add_collection(PolyCollection(tips[kind], facecolors=colour, zorder=kind))


def _draw_groups(
    axes: Any, layout: Layout, coarse: CoarseGraph, devices: Sequence[str], groups: Sequence[int]
) -> None:
    from matplotlib.collections import EllipseCollection

    colours = _colours(devices, groups)
    size, xy = 2 * layout.radius, layout.xy[: coarse.num_groups]
    style: dict[str, Any] = {"units": "xy", "offset_transform": axes.transData, "zorder": 2}
    style |= {"facecolors": colours, "edgecolors": "white", "linewidths": 0.8}
    axes.add_collection(EllipseCollection(size, size, np.zeros(len(size)), offsets=xy, **style))
    points = 72 * HEIGHT * FRAME[3] / (layout.y_range[1] - layout.y_range[0])  # per unit
    text = {"ha": "center", "va": "center", "zorder": 3}
    for group, ((x, y), width) in enumerate(zip(xy.tolist(), size.tolist(), strict=True)):
        font = min(0.42 * width * points, 13)
        if font >= LEGIBLE:
            ink = "black" if colours[group] in LIGHT else "white"
            axes.text(x, y, str(group), size=font, color=ink, **text)
        if coarse.num_groups <= MAX_LABELLED:
            kind = main_types(coarse, computed_ops(coarse, [group]))[0]
            font = min(1.8 * points / len(kind), 11)
            axes.text(x, y - width / 2 - 10 / points, kind, size=font, **text)


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
    figure.legend(handles, labels, frameon=False, **style)


def _crosses(producer: int, consumer: int) -> bool:
    """Whether data moves between the devices of two groups; not known of unplaced ones."""
    return producer != consumer and min(producer, consumer) >= 0


def _colours(devices: Sequence[str], chosen: Sequence[int]) -> list[str]:
    """The colour of each of some devices; -1: not placed."""
    known = [*device_colours(devices), UNPLACED_COLOUR]
    return [known[device] for device in chosen]
