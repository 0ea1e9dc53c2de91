"""Random placements of all kinds, to measure what placing costs."""

from __future__ import annotations

import numpy as np

from device_placement.envs.coarsening import CoarseGraph

Assignment = tuple[int, ...]  # (num_groups,) device numbers
ATTEMPTS = 20  # draws for each placement that is wanted, where few differ


def draw_placements(
    coarse: CoarseGraph, count: int, generator: np.random.Generator
) -> list[Assignment]:
    """Different random placements, no singles, with few cuts and with many.

    Each has its own shares of the devices, uniform among all shares, and its own mean length
    of run L, log-uniform from 1 to the number of groups. In topological order a group stays
    on the device of the one before with probability 1 - 1 / L; else a device is drawn by the
    shares.

    Args:
        coarse: the groups; only devices that support one are drawn for it.
        count: how many; fewer come back where there are not so many.
        generator: draws.
    """
    found: dict[Assignment, None] = {}
    for _ in range(ATTEMPTS * count):
        if len(found) == count:
            break
        one = _draw(coarse, generator)
        if len(set(one)) > 1:
            found[one] = None
    return list(found)


def _draw(coarse: CoarseGraph, generator: np.random.Generator) -> Assignment:
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
