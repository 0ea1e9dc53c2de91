"""Large-neighbourhood search for cheap evaluators: moves of windows, pairs and triples of units."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable

import numpy as np

from device_placement.agents.placers.search_space import Choice, Choices
from device_placement.envs.arrays import Bool, Float64, Int64, UInt8
from device_placement.envs.jit import compiled

OVERLAP = 4  # windows of each length begin a quarter of it apart
BATCH = 1024  # pairs of moves that are tried at once
FEW = 1 << 16  # choices that are remembered, not to be tried twice
BETTER = 1 - 1e-9  # relative: what counts as faster


Times = Callable[[Choices], Float64]  # -> (batch,) seconds; inf where not allowed


@functools.lru_cache(maxsize=4)
def windows(num_units: int) -> Bool:
    """Return windows of 1, 2, 4 ... and all adjacent units, (num_windows, num_units), read-only.

    >>> windows(3).astype(int).tolist()
    [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 1, 1]]
    """
    lengths = np.unique([*2 ** np.arange(num_units.bit_length()), num_units])
    numbers = np.arange(num_units)
    spans = np.array(
        [
            (numbers >= begin) & (numbers < begin + length)
            for length in lengths.tolist()
            for begin in range(0, num_units - length + 1, max(1, length // OVERLAP))
        ]
    )
    spans.flags.writeable = False
    return spans


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
    begins, ends = spans.argmax(axis=1), spans.argmax(axis=1) + spans.sum(axis=1)
    small, time_s, order = _descend(times, choice.astype(np.uint8), spans, allowed, math.inf)
    failures = 0
    seen = np.zeros(_num_choices(len(choice), allowed.shape[1]), dtype=np.bool_)
    while failures < patience:
        count = 2 + failures % 2
        rank = (order.size * generator.random(BATCH) ** 2).astype(np.int64)
        first_device, first = np.divmod(order[rank], len(spans))
        window, device = [first], [first_device]
        for _ in range(1, count):
            window.append(generator.integers(len(spans), size=BATCH))
            device.append(generator.integers(allowed.shape[1], size=BATCH))
        chosen, targets = np.array(window), np.array(device, dtype=np.uint8)
        rows = np.arange(BATCH)
        if not seen.size:  # neighbours agree on the first units: see `concurrent_times`
            rows = begins[chosen].min(axis=0).astype(np.int16).argsort(kind="stable")
            chosen, targets = chosen.take(rows, axis=1), targets.take(rows, axis=1)
        tried, origin, num_tried = apply_moves(
            small, begins[chosen], ends[chosen], targets, allowed, seen
        )
        times_s = times(tried[:num_tried]) if num_tried else np.full(1, math.inf)
        fastest_s = times_s.min()
        if fastest_s < time_s * BETTER:
            fastest = np.flatnonzero(times_s == fastest_s)
            best = fastest[rows[origin[fastest]].argmin()]  # the one that was drawn first
            small, time_s, order = _descend(times, tried[best], spans, allowed, math.inf)
            failures = 0
        else:
            failures += 1
    return small.astype(np.int64), time_s


@compiled
def apply_moves(
    choice: UInt8, begins: Int64, ends: Int64, devices: UInt8, allowed: Bool, seen: Bool
) -> tuple[UInt8, Int64, int]:
    """Apply some moves of windows one after the other to a choice, many times.

    What a single move leads to, or none, is left out: after a descent it is no improvement. A move
    does nothing if its units are where it puts them, unless an earlier one has moved some of them.
    Choices that were tried before are left out too: the search has been at least as fast since.

    Args:
        choice: (num_units,) devices.
        begins: (num_moves, batch) first unit of each window.
        ends: (num_moves, batch) the unit after the last of it.
        devices: (num_moves, batch) where its units go.
        allowed: (num_units, num_devices) which devices run a unit; other units stay in place.
        seen: (num_devices ** num_units,) which choices were tried before, updated; their number has
            the device of each unit as a digit, the first unit last. Empty: all are tried.

    Returns:
        (batch, num_units) the choices, and (batch,) the column of `begins` that each comes from, of
        which only the first count; and their number.
    """
    moves, batch = begins.shape
    units, num_devices = allowed.shape
    # Of each device: how many units before each one it would move.
    movable = np.zeros((num_devices, units + 1), dtype=np.int64)
    for device in range(num_devices):
        for unit in range(units):
            moves_it = allowed[unit, device] and choice[unit] != device
            movable[device, unit + 1] = movable[device, unit] + moves_it
    tried, origin = np.empty((batch, units), dtype=np.uint8), np.empty(batch, dtype=np.int64)
    number = 0
    for b in range(batch):
        effective = 0
        for move in range(moves):
            begin, end, device = begins[move, b], ends[move, b], devices[move, b]
            if movable[device, end] > movable[device, begin]:
                effective += 1
            else:
                for earlier in range(move):
                    if begins[earlier, b] < end and begin < ends[earlier, b]:
                        effective += 1
                        break
        if effective < 2:
            continue
        tried[number] = choice
        for move in range(moves):
            device = devices[move, b]
            for unit in range(begins[move, b], ends[move, b]):
                if allowed[unit, device]:
                    tried[number, unit] = device
        if seen.size:
            code = 0
            for unit in range(units - 1, -1, -1):
                code = code * num_devices + tried[number, unit]
            if seen[code]:
                continue
            seen[code] = True
        origin[number] = b
        number += 1
    return tried, origin, number


def _num_choices(num_units: int, num_devices: int) -> int:
    """Return the number of choices if they are few enough to remember each, else 0."""
    number = num_devices**num_units
    return number if number <= FEW else 0


def _descend(
    times: Times, choice: UInt8, spans: Bool, allowed: Bool, deadline: float
) -> tuple[UInt8, float, Int64]:
    """Return choice, seconds, and moves, device * num_windows + window, from best to worst."""
    time_s = float(times(choice[None])[0])
    num_devices = allowed.shape[1]
    # By their first units, so that neighbours agree on those before: see `concurrent_times`.
    rows = spans.argmax(axis=1).argsort(kind="stable")
    effective = np.stack([spans[rows] & allowed[:, device] for device in range(num_devices)])
    targets = np.arange(num_devices, dtype=np.uint8)[:, None, None]
    moves_s = np.empty((num_devices, len(spans)))
    while True:
        moved = np.where(effective, targets, choice)
        moves_s[:, rows] = times(moved.reshape(-1, len(choice))).reshape(num_devices, -1)
        times_s = moves_s.ravel()
        best = int(times_s.argmin())
        if time.perf_counter() > deadline or not times_s[best] < time_s * BETTER:
            return choice, time_s, np.argsort(times_s, kind="stable")
        device, window = divmod(best, len(spans))
        choice = np.where(spans[window] & allowed[:, device], np.uint8(device), choice)
        time_s = float(times_s[best])
