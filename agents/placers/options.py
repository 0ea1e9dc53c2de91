"""The checks of what placers are told."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from device_placement.envs.errors import DevicePlacementError, unknown


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


def check_names(name: str, kind: type[Any], options: Mapping[str, Any]) -> None:
    """Check that a placer has options of these names.

    Args:
        name: of the placer.
        kind: its class.
        options: what it is to be told, by name.

    Raises:
        DevicePlacementError: when it has not.
    """
    allowed = [field.name for field in dataclasses.fields(kind)]
    for option in options:
        if option not in allowed:
            raise DevicePlacementError(unknown(f"option of the placer {name!r}", option, allowed))
