"""Large-neighbourhood search for cheap evaluators: moves of windows, pairs and triples of units."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from device_placement.agents.placers.search_space import Choice, Choices
from device_placement.envs.arrays import Bool, Float64, Int64, UInt8

OVERLAP = 4  # windows of each length begin a quarter of it apart
BATCH = 1024  # pairs of moves that are tried at once
BETTER = 1 - 1e-9  # relative: what counts as faster


Times = Callable[[Choices], Float64]  # -> (batch,) seconds; inf where not allowed


def windows(num_units: int) -> Bool:
    """Return windows of 1, 2, 4 ... and all adjacent units, (num_windows, num_units).

    >>> windows(3).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]]
    """
    lengths = np.unique([*2 ** np.arange(num_units.bit_length()), num_units])
    numbers = np.arange(num_units)
    return np.array(
        [
            (numbers >= begin) & (numbers < begin + length)
            for length in lengths.tolist()
            for begin in range(0, num_units - length + 1, max(1, length // OVERLAP))
        ]
    )


def descend(
    times: Times, choice: Choice, allowed: Bool, deadline: float = math.inf
) -> tuple[Choice, float]:
    """Move the window that helps most to another device, as long as one helps; return the result.

    Args:
        times: of many choices at once.
        choice: (num_units,) devices to start from.
        allowed: (num_units, num_devices) which devices run a unit; other units stay in place.
        deadline: on `time.perf_counter`, after which the search ends.

    Returns:
        (num_units,) devices, and their seconds.

    >>> cost = np.array([[3, 1], [1, 2], [1, 2]])
    >>> times = lambda choices: cost[[0, 1, 2], choices].sum(axis=1).astype(float)
    >>> descend(times, np.zeros(3, dtype=int), np.ones((3, 2), dtype=bool))
    (array([1, 0, 0]), 3.0)
    """
    spans = windows(len(choice))
    small = choice.astype(np.uint8)
    small, time_s, _ = _descend(times, small, spans, allowed, deadline)
    return small.astype(np.int64), time_s


def neighbourhood_search(
    times: Times, choice: Choice, allowed: Bool, generator: np.random.Generator, patience: int
) -> tuple[Choice, float]:
    """Descend; when no window helps, try random pairs and triples, and descend from those that do.

    The first window of each is one of those that did least harm alone.

    Args:
        times: of many choices at once.
        choice: (num_units,) devices to start from.
        allowed: (num_units, num_devices) which devices run a unit; other units stay in place.
        generator: of all random choices.
        patience: batches in a row without success after which the search ends.

    Returns:
        (num_units,) devices, and their seconds.
    """
    spans = windows(len(choice))
    small, time_s, order = _descend(times, choice.astype(np.uint8), spans, allowed, math.inf)
    failures = 0
    while failures < patience:
        tried = np.repeat(small[None], BATCH, axis=0)
        for number in range(2 + failures % 2):
            if number == 0:
                rank = (order.size * generator.random(BATCH) ** 2).astype(np.int64)
                device, window = np.divmod(order[rank], len(spans))
            else:
                window = generator.integers(len(spans), size=BATCH)
                device = generator.integers(allowed.shape[1], size=BATCH)
            moves = spans[window] & allowed.T[device]
            tried = np.where(moves, device[:, None].astype(np.uint8), tried)
        times_s = times(tried)
        best = int(times_s.argmin())
        if times_s[best] < time_s * BETTER:
            small, time_s, order = _descend(times, tried[best], spans, allowed, math.inf)
            failures = 0
        else:
            failures += 1
    return small.astype(np.int64), time_s


def _descend(
    times: Times, choice: UInt8, spans: Bool, allowed: Bool, deadline: float
) -> tuple[UInt8, float, Int64]:
    """Return choice, seconds, and moves, device * num_windows + window, from best to worst."""
    time_s = float(times(choice[None])[0])
    while True:
        moved = np.concatenate(
            [
                np.where(spans & allowed[:, device], np.uint8(device), choice)
                for device in range(allowed.shape[1])
            ]
        )
        times_s = times(moved)
        best = int(times_s.argmin())
        if time.perf_counter() > deadline or not times_s[best] < time_s * BETTER:
            return choice, time_s, np.argsort(times_s, kind="stable")
        choice, time_s = moved[best], float(times_s[best])
