"""Settings of the generator of problems."""

from __future__ import annotations

import math
from dataclasses import dataclass

from device_placement.envs.costs import MAX_DEVICES
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.problems.graphs import MAX_GROUPS, MIN_GROUPS
from device_placement.envs.problems.wiring import FAMILIES
from device_placement.envs.simulation.schedule import SCHEDULES


@dataclass(frozen=True)
class GeneratorConfig:
    """Distribution of generated problems.

    Ranges are (least, most), both included.

    Raises:
        DevicePlacementError: when a setting is not allowed.

    >>> GeneratorConfig(groups=(10, 40), families=("branching",)).groups
    (10, 40)
    """

    groups: tuple[int, int] = (10, 300)
    """Number of groups, log-uniform."""
    devices: tuple[int, int] = (2, 8)
    """Number of devices, log-uniform."""
    families: tuple[str, ...] = tuple(FAMILIES)
    """Families of graphs, each as frequent as the others: layered, branching, chained or
    repeated."""
    schedules: tuple[str, ...] = tuple(SCHEDULES)
    """Schedules, each as frequent as the others."""
    group_s: tuple[float, float] = (1e-5, 1e-3)
    """Mean seconds of a group on the first device, log-uniform."""
    transfer_ratio: tuple[float, float] = (0.005, 1.5)
    """Mean seconds to move a tensor over the mean seconds of a group on its fastest device,
    log-uniform."""
    speed_spread: float = 0.8
    """Standard deviation of the logarithm to base 2 of the devices' speeds."""
    type_spread: float = 1.7
    """Standard deviation of the logarithm to base 2 of a device's speed over the types of ops;
    some machines have less, down to a quarter."""
    twin_share: float = 0.45
    """Share of the machines on which some devices are alike; of those with two devices, a third as
    many."""
    limited_share: float = 0.4
    """Share of the problems with a memory limit."""
    pool_share: float = 0.3
    """Share of the problems with a limit whose devices share it, where there are enough devices."""
    lacking_share: float = 0.35
    """Share of the problems in which devices can't run some types of ops."""

    def __post_init__(self) -> None:
        _check_range("groups", self.groups, MIN_GROUPS, MAX_GROUPS, whole=True)
        _check_range("devices", self.devices, 2, MAX_DEVICES, whole=True)
        _check_range("group_s", self.group_s, 1e-12, 1e6)
        _check_range("transfer_ratio", self.transfer_ratio, 1e-6, 1e6)
        for name, kind, table in (
            ("families", "family of graphs", FAMILIES),
            ("schedules", "schedule", SCHEDULES),
        ):
            chosen = getattr(self, name)
            if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen):
                raise DevicePlacementError(
                    f"Got {name}={chosen!r}; give at least one of {', '.join(table)}, each once, "
                    "as a tuple."
                )
            for one in chosen:
                choose(kind, one, dict.fromkeys(table))
        for name, most in (
            *((name, 4.0) for name in ("speed_spread", "type_spread")),
            *((f"{name}_share", 1.0) for name in ("twin", "limited", "pool", "lacking")),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise DevicePlacementError(
                    f"Got {name}={getattr(self, name)!r}; give a number from 0 to {most:g}."
                )


def _check_range(
    name: str, given: tuple[float, float], least: float, most: float, whole: bool = False
) -> None:
    kind = int if whole else (int, float)
    right = (
        isinstance(given, tuple)
        and len(given) == 2
        and all(isinstance(one, kind) and math.isfinite(one) for one in given)
        and least <= given[0] <= given[1] <= most
    )
    if not right:
        raise DevicePlacementError(
            f"Got {name}={given!r}; give (least, most), two {'whole ' * whole}numbers from "
            f"{least:g} to {most:g}, the smaller one first."
        )
