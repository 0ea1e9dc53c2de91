"""Costs written by hand, or drawn at random, for the schedules and those who search on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.costs import FREE, Costs


def make_costs(
    compute_s: Sequence[Sequence[float]],
    tensors: Mapping[int, tuple[float, Sequence[int]]],
    **changes: Any,
) -> Costs:
    """Costs of groups and of tensors, producer -> (bytes, readers), one tensor a producer.

    A byte takes a second between any two devices, without latency.
    """
    compute = np.array(compute_s, dtype=np.float64)
    groups, devices = compute.shape
    readers = [sorted(tensors[producer][1]) for producer in sorted(tensors)]
    apart = 1.0 - np.eye(devices)
    fields: dict[str, Any] = {
        "compute_s": compute,
        "tensor_group": np.array(sorted(tensors), dtype=np.int32),
        "tensor_bytes": np.array([tensors[one][0] for one in sorted(tensors)], dtype=np.float64),
        "reader_start": np.cumsum([0, *map(len, readers)]).astype(np.int32),
        "reader": np.array([group for row in readers for group in row], dtype=np.int32),
        "latency_s": 0.0 * apart,
        "s_per_byte": apart,
        "subgraph_s": np.zeros(devices),
        "group_bytes": np.zeros(groups),
        "memory_bytes": np.full(devices, np.inf),
        "pays": np.ones(devices, dtype=np.bool_),
        "colour": np.full(groups, FREE, dtype=np.int32),
    }
    return Costs(**fields | changes)


def random_costs(
    generator: np.random.Generator, groups: int, devices: int, **changes: Any
) -> Costs:
    """A random DAG whose times are small whole numbers, so that sums are exact."""
    tensors: dict[int, tuple[float, list[int]]] = {}
    for producer in range(groups - 1):
        later = np.arange(producer + 1, groups)
        readers = later[generator.random(later.size) < 2.0 / later.size]
        if readers.size:
            tensors[producer] = (float(generator.integers(1, 8)), readers.tolist())
    apart = 1.0 - np.eye(devices)
    links: dict[str, NDArray[np.float64]] = {
        "latency_s": apart * generator.integers(0, 4, (devices, devices)),
        "s_per_byte": apart * generator.integers(1, 3, (devices, devices)),
    }
    compute = generator.integers(1, 16, (groups, devices)).tolist()
    return make_costs(compute, tensors, **links | changes)


def costs_with_ends(generator: np.random.Generator, groups: int, devices: int) -> Costs:
    """Random costs of regions, too, whose first groups are Parameters and whose last are Results.

    Some of these compute, too, as a group may hold ops of both kinds.
    """
    costs = random_costs(
        generator,
        groups,
        devices,
        region_s=generator.integers(0, 5, devices).astype(float),
        crossing_s=generator.integers(0, 3, devices).astype(float),
        split_factor=generator.integers(1, 3, devices).astype(float),
    )
    numbers = np.arange(groups)
    first, last = numbers < groups // 4, numbers >= groups - groups // 5
    is_idle = (first & ~np.isin(numbers, costs.reader)) | (
        last & ~np.isin(numbers, costs.tensor_group)
    )
    is_free = is_idle & bool(generator.integers(2))
    return replace(
        costs,
        compute_s=np.where(is_free[:, None], 0.0, costs.compute_s),
        is_input=first[costs.tensor_group],
        is_output=last[costs.reader],
        is_idle=is_idle,
    )
