"""Random placements whose times tell costs apart: mixtures of long and short runs."""

from __future__ import annotations

import numpy as np

from device_placement.envs.graph.coarsening import CoarseGraph

ATTEMPTS = 20  # draws per wanted placement, as some are repeated


def draw_placements(
    coarse: CoarseGraph, count: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """Return distinct random placements, no singles, with few cuts and with many.

    Each draws its device shares uniformly, and its mean run length L log-uniformly from 1 to
    the number of groups. In topological order, a group stays on the device of the previous one
    with probability 1 - 1 / L; otherwise a device is drawn by the shares.

    Args:
        coarse: the groups; only devices that support a group are drawn for it.
        count: how many; fewer are returned if not enough exist.
        generator: source of randomness.
    """
    found: dict[tuple[int, ...], None] = {}
    for _ in range(ATTEMPTS * count):
        if len(found) == count:
            break
        one = _draw(coarse, generator)
        if len(set(one)) > 1:
            found[one] = None
    return list(found)


def _draw(coarse: CoarseGraph, generator: np.random.Generator) -> tuple[int, ...]:
    num_devices = coarse.supported.shape[1]
    shares = generator.dirichlet(np.ones(num_devices))
    stay = 1 - coarse.num_groups ** -generator.random()
    devices: list[int] = []
    for supported in coarse.supported:
        if devices and supported[devices[-1]] and generator.random() < stay:
            devices.append(devices[-1])
            continue
        weights = shares * supported
        devices.append(int(generator.choice(num_devices, p=weights / weights.sum())))
    return tuple(devices)
