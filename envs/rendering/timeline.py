"""Timeline picture of a placement: when each device and each link is busy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from device_placement.envs.executors.dataflow import RegionRun
from device_placement.envs.rendering.style import (
    UNPLACED_COLOUR,
    device_colours,
    literal,
    new_figure,
    plain_axes,
)
from device_placement.envs.simulation.timeline import Event

WIDTH, LANE, MARGIN = 12.0, 0.42, 1.35  # inches: of the picture, of a lane, of title and axis
UNITS = ((1.0, "s"), (1e-3, "ms"), (0.0, "µs"))  # smallest number of seconds for each unit


def region_events(runs: Sequence[RegionRun], devices: Sequence[str]) -> list[Event]:
    """Return the events of a measured run under ``dataflow``, one per region.

    Args:
        runs: from `OpenVINOEvaluator.timeline` or `DataflowRequest.timeline`.
        devices: (num_devices,) names.
    """
    number = {name: index for index, name in enumerate(devices)}
    return [
        Event(number[one.device], number[one.device], one.start_s, one.end_s, one.region)
        for one in runs
    ]


def draw_timeline(events: Sequence[Event], devices: Sequence[str], title: str) -> Any:
    """Draw a lane for each device and for each link that is used, and return the figure.

    A group has the colour of its device, a move that of its source.

    Args:
        events: from `timeline` or `region_events`.
        devices: (num_devices,) names.
        title: what is shown.

    Returns:
        A matplotlib figure.

    Raises:
        DevicePlacementError: when matplotlib is not installed.
    """
    links = sorted({(one.source, one.target) for one in events if one.moves})
    lanes = [*((device, device) for device in range(len(devices))), *links]
    end_s = max((one.end_s for one in events), default=0.0)
    scale, unit = next((s or 1e-6, name) for s, name in UNITS if end_s >= s)
    colours = device_colours(devices)
    figure = new_figure(WIDTH, MARGIN + LANE * len(lanes))
    axes = figure.add_subplot()
    for number, lane in enumerate(lanes):
        mine = [one for one in events if (one.source, one.target) == lane]
        spans = [(one.start_s / scale, (one.end_s - one.start_s) / scale) for one in mine]
        fill = [colours[lane[0]] if one.group >= 0 else UNPLACED_COLOUR for one in mine]
        height = 0.8 if lane[0] == lane[1] else 0.5
        axes.broken_barh(
            spans, (number - height / 2, height), facecolors=fill, edgecolors="white", linewidth=0.3
        )
    names = [
        devices[source] if source == target else f"{devices[source]} → {devices[target]}"
        for source, target in lanes
    ]
    busy = [
        sum(one.end_s - one.start_s for one in events if (one.source, one.target) == lane)
        for lane in lanes
    ]
    labels = [
        f"{name}, {100 * busy_s / end_s:.0f} % busy" if end_s else name
        for name, busy_s in zip(names, busy, strict=True)
    ]
    axes.set(
        yticks=range(len(lanes)), yticklabels=list(map(literal, labels)), xlabel=f"time in {unit}"
    )
    axes.set(xlim=(0.0, end_s / scale or 1.0), ylim=(len(lanes) - 0.4, -0.6))
    axes.set_title(literal(title), loc="left")
    plain_axes(axes, grid="x")
    return figure
