"""The check that placers make of their options."""

from __future__ import annotations

import math

from device_placement.envs.errors import DevicePlacementError


def check_options(placer: object, **allowed: tuple[float, float]) -> None:
    """Check that fields of a placer lie in their ranges, ends included.

    Args:
        placer: the placer.
        allowed: lowest and highest value by the name of the field.

    Raises:
        DevicePlacementError: when one does not.

    >>> from device_placement.agents.placers.genetic import Genetic
    >>> Genetic(population=1)
    Traceback (most recent call last):
    device_placement.envs.errors.DevicePlacementError: Got population=1 for Genetic; it must be 2 \
or more.
    """
    for name, (low, high) in allowed.items():
        value = getattr(placer, name)
        if not low <= value <= high:
            limits = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise DevicePlacementError(
                f"Got {name}={value!r} for {type(placer).__name__}; it must be {limits}."
            )
