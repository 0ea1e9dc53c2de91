"""Style shared by all figures: plain axes, and the same colour for a device everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from device_placement.envs.errors import DevicePlacementError

# Okabe and Ito's colours, which suit colour-blind readers; the eighth device repeats the first.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
# Paul Tol's bright colours, for everything but devices.
OTHERS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#777777")
UNPLACED_COLOUR = "#C4C4C4"
LIGHT = (PALETTE[1], PALETTE[4], PALETTE[6], UNPLACED_COLOUR)  # text on these is black
USUAL = {"CPU": 0, "GPU": 1, "GPU.0": 1, "NPU": 2, "GPU.1": 3, "GPU.2": 4, "CPU_F32": 5}
GRID_COLOUR = "#DDDDDD"


def new_figure(width: float, height: float, **options: Any) -> Any:
    """Return an empty matplotlib figure.

    Args:
        width: in inches.
        height: in inches.
        options: of ``Figure``; by default the layout is constrained.

    Raises:
        DevicePlacementError: when matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DevicePlacementError(
            "Can't import matplotlib, which pictures need; run "
            "pip install 'device-placement[render]'"
        ) from error
    return Figure(figsize=(width, height), **{"layout": "constrained"} | options)


def literal(text: str) -> str:
    r"""Return text that matplotlib draws as it is: no mathematics, no label that it leaves out.

    >>> print(literal("a$x^2$.py"), literal("_mine.py"))
    a\$x^2\$.py  _mine.py
    """
    escaped = text.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def plain_axes(axes: Any, grid: str = "both") -> None:
    """Keep only the left and the lower spine, and draw faint grid lines behind the data.

    Args:
        axes: of a figure.
        grid: which lines: ``x``, ``y`` or ``both``.
    """
    axes.grid(axis=grid, color=GRID_COLOUR, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def device_colours(devices: Sequence[str]) -> list[str]:
    """Return the colour of each device, (num_devices,); unknown devices take unused colours.

    >>> device_colours(["GPU.1", "CPU"]) == [PALETTE[3], PALETTE[0]]
    True
    >>> device_colours(["CPU", "CPU_2"]) == [PALETTE[0], PALETTE[1]]
    True
    """
    chosen: dict[int, int] = {}
    for number, name in enumerate(devices):
        if (usual := USUAL.get(name)) is not None and usual not in chosen.values():
            chosen[number] = usual
    left = [one for one in range(len(PALETTE)) if one not in chosen.values()]
    others = [number for number in range(len(devices)) if number not in chosen]
    for position, number in enumerate(others):
        chosen[number] = left[position % len(left)] if left else position % len(PALETTE)
    return [PALETTE[chosen[number]] for number in range(len(devices))]
