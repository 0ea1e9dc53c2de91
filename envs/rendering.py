"""A placement to look at: as text, and as a picture of the coarse graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.colours import LIGHT, UNPLACED_COLOUR, device_colours
from device_placement.envs.errors import DevicePlacementError, PlacementError
from device_placement.envs.graph import Float64
from device_placement.envs.layout import Layout, arrow_head, curve, lay_out

CROSSING_COLOUR, EDGE_COLOUR = "#1A1A1A", "#A8B0B8"
MAX_LINES = 24  # of a text; further runs of groups are only counted
MAX_LABELLED = 20  # groups whose op types are written into the picture
WIDTH, HEIGHT, DPI = 12.8, 7.2, 100  # of a picture, in inches and pixels per inch
FRAME = (0.02, 0.09, 0.96, 0.82)  # left, bottom, width, height of the graph, as shares


def render_text(
    coarse: CoarseGraph,
    devices: Sequence[str],
    assignment: Sequence[int],
    time_s: float,
    num_subgraphs: int,
) -> str:
    """The placement as text: a line per run of groups on one device, and each device's share.

    Args:
        coarse: the groups.
        devices: (num_devices,) names.
        assignment: (num_groups,) index of each group's device; -1 where there is none yet.
        time_s: seconds per inference; NaN when it was not timed.
        num_subgraphs: pieces that run on their own; 0 when that is not known.

    Raises:
        PlacementError: when the assignment does not fit the groups or the devices.
    """
    groups = _check(coarse, devices, assignment)
    runs = [list(run) for _, run in groupby(range(coarse.num_groups), lambda g: groups[g])]
    unit, scale = flops_unit(float(coarse.graph.flops.sum()))
    rows = [("groups", "device", "ops", unit, "main op types")]
    for run in runs[:MAX_LINES]:
        span = f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}"
        ops = computed_ops(coarse, run)
        flops = f"{coarse.graph.flops[ops].sum() / scale:.3f}"
        kinds = ", ".join(main_types(coarse, ops)[:3])
        rows.append((span, _name(devices, groups[run[0]]), str(len(ops)), flops, kinds))
    lines = [f"{coarse.graph.name}: {_headline(coarse, time_s, num_subgraphs)}"]
    lines += [f"  {line}" for line in align(rows, right=(2, 3))]
    if len(runs) > MAX_LINES:
        first = runs[MAX_LINES][0]
        lines.append(f"  ... {count(len(runs) - MAX_LINES, 'more run')}, from group {first} on")
    return "\n".join([*lines, *(f"  {line}" for line in _shares(coarse, devices, groups))])


def render_picture(
    coarse: CoarseGraph,
    devices: Sequence[str],
    assignment: Sequence[int],
    time_s: float,
    num_subgraphs: int,
) -> NDArray[np.uint8]:
    """The placement as a picture of the coarse graph: arguments and errors as `render_text`.

    The graph winds down the picture like a snake: data flows to the right in the first row,
    back to the left in the second, and so on. Groups are coloured by device and sized by
    the logarithm of their FLOPs; dark edges cross from one device to another.

    Returns:
        (720, 1280, 3) red, green and blue.

    Raises:
        DevicePlacementError: when matplotlib is not installed.
    """
    groups = _check(coarse, devices, assignment)
    headline = _headline(coarse, time_s, num_subgraphs)
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DevicePlacementError(
            "A picture needs matplotlib: pip install 'device-placement[render]'"
        ) from error
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    canvas: Any = FigureCanvasAgg(figure)
    layout = lay_out(coarse, WIDTH * FRAME[2] / (HEIGHT * FRAME[3]))
    axes: Any = figure.add_axes(FRAME)
    axes.set(xlim=layout.x_range, ylim=layout.y_range)
    axes.axis("off")
    _draw_edges(axes, layout, groups)
    _draw_groups(axes, layout, coarse, devices, groups)
    title: dict[str, Any] = {"x": 0.02, "y": 0.945, "va": "center"}
    figure.text(**title, s=coarse.graph.name, size=17, weight="bold")
    figure.text(**title | {"x": 0.98, "ha": "right"}, s=headline, size=14)
    _draw_legend(figure, coarse, devices, groups)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def align(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines with each column's cells below one another; columns in `right` end alike.

    >>> align([("device", "ops"), ("CPU", "12")], right=[1])
    ['device  ops', 'CPU      12']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def flops_unit(flops: float) -> tuple[str, float]:
    """The unit that suits a model of so many FLOPs, and its size."""
    return ("GFLOPs", 1e9) if flops >= 1e8 else ("MFLOPs", 1e6)


def count(number: int, noun: str) -> str:
    """A number with its noun, as in ``1 group`` and ``2 groups``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _check(coarse: CoarseGraph, devices: Sequence[str], assignment: Sequence[int]) -> list[int]:
    groups = [int(device) for device in assignment]
    if len(groups) != coarse.num_groups or not all(-1 <= g < len(devices) for g in groups):
        raise PlacementError(
            f"Got {len(groups)} numbers from {min(groups, default=-1)} to "
            f"{max(groups, default=-1)}; give a device for each of the {coarse.num_groups} "
            f"groups, from -1 (not placed) to {len(devices) - 1}."
        )
    return groups


def _name(devices: Sequence[str], device: int) -> str:
    return devices[device] if device >= 0 else "not placed"


def _headline(coarse: CoarseGraph, time_s: float, num_subgraphs: int) -> str:
    parts = ["not timed" if math.isnan(time_s) else f"{time_s * 1e3:.3g} ms"]
    if num_subgraphs:
        parts.append(count(num_subgraphs, "subgraph"))
    return ", ".join([*parts, count(coarse.num_groups, "group")])


def computed_ops(coarse: CoarseGraph, groups: Sequence[int]) -> NDArray[np.int64]:
    """The ops of some groups that are not constant; all where there are no others."""
    ops = np.flatnonzero(np.isin(coarse.op_group, groups))
    computed = ops[~coarse.graph.is_constant[ops]]
    return computed if computed.size else ops


def main_types(coarse: CoarseGraph, ops: NDArray[np.int64]) -> list[str]:
    """Types of ops, the one with the most FLOPs first, then the most frequent."""
    weight: dict[str, NDArray[np.float64]] = {}
    for op in ops.tolist():
        kind = coarse.graph.op_types[op]
        weight.setdefault(kind, np.zeros(2))
        weight[kind] += coarse.graph.flops[op], 1
    return sorted(weight, key=lambda kind: tuple(-weight[kind]))


def _shares(coarse: CoarseGraph, devices: Sequence[str], groups: Sequence[int]) -> list[str]:
    """What each device has, in the devices' order; what is not placed yet last."""
    flops = np.bincount(coarse.op_group, coarse.graph.flops, minlength=coarse.num_groups)
    lines = []
    for device in [*range(len(devices)), *([-1] if -1 in groups else [])]:
        mine = np.asarray(groups) == device
        share = f"{flops[mine].sum() / max(flops.sum(), 1):.0%} of FLOPs"
        lines.append(f"{_name(devices, device)}: {count(int(mine.sum()), 'group')}, {share}")
    return lines


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
        if font >= 5.5:
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
    labels = [*_shares(coarse, devices, groups), f"{crossing}, {megabytes:.4g} MB"]
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
