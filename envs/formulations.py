"""How an episode builds a placement: what an action changes, and when it is evaluated.

Each formulation is a small record of pure functions; the environment keeps the state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.observation import UNPLACED, Layout, device_masks

Assignment = NDArray[np.int64]  # (num_groups,) device of each group, or UNPLACED
Supported = NDArray[np.bool_]  # (num_groups, num_devices)


class Formulation(Protocol):
    """How actions become placements. `step` counts the actions of the episode so far."""

    starts_placed: bool  # whether an episode starts from a whole placement
    undoes_invalid: bool  # whether an invalid placement is taken back

    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        """The assignment that an action leads to, a new array."""

    def cursor(self, num_groups: int, step: int) -> int | None:
        """The group that the next action places, where that is fixed."""

    def masks(self, supported: Supported, step: int) -> NDArray[np.bool_]:
        """The actions allowed next; flat, as MaskablePPO takes them."""

    def is_due(self, num_groups: int, step: int) -> bool:
        """Whether the placement is evaluated after this step."""

    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        """Whether the episode terminates, and whether it is truncated, after this step."""


@dataclass(frozen=True)
class _WholePlacements(Formulation):
    """What `assign` and `refine` share: every step leads to a whole placement."""

    layout: Layout
    horizon: int

    @override
    def cursor(self, num_groups: int, step: int) -> int | None:
        return None

    @override
    def masks(self, supported: Supported, step: int) -> NDArray[np.bool_]:
        return device_masks(supported, self.layout).reshape(-1)

    @override
    def is_due(self, num_groups: int, step: int) -> bool:
        return True


@dataclass(frozen=True)
class Assign(_WholePlacements):
    """An action is a whole placement; `horizon` proposals are an episode."""

    starts_placed = False
    undoes_invalid = False

    @override
    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        return np.array(action, dtype=np.int64).reshape(-1)[: assignment.size]

    @override
    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        last = step >= self.horizon
        return last and self.horizon == 1, last and self.horizon > 1


@dataclass(frozen=True)
class Construct(Formulation):
    """An action is the device of the next group in topological order."""

    layout: Layout
    horizon: int
    starts_placed = False
    undoes_invalid = False

    @override
    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        result = assignment.copy()
        result[step - 1] = int(action)
        return result

    @override
    def cursor(self, num_groups: int, step: int) -> int | None:
        return step if step < num_groups else None

    @override
    def masks(self, supported: Supported, step: int) -> NDArray[np.bool_]:
        if step >= len(supported) or not supported[step].any():  # a dead end
            return np.ones(self.layout.num_devices, dtype=np.bool_)
        return np.array(supported[step])

    @override
    def is_due(self, num_groups: int, step: int) -> bool:
        return step == num_groups

    @override
    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        return step == num_groups, False


@dataclass(frozen=True)
class Refine(_WholePlacements):
    """An action moves one group to one device; `horizon` moves are an episode."""

    starts_placed = True
    undoes_invalid = True

    @override
    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        group, device = divmod(int(action), self.layout.num_devices)
        result = assignment.copy()
        if group < result.size:
            result[group] = device
        return result

    @override
    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        return False, step >= self.horizon


_FORMULATIONS: dict[str, Callable[[Layout, int], Formulation]] = {
    "assign": Assign,
    "construct": Construct,
    "refine": Refine,
}


def make_formulation(name: str, layout: Layout, horizon: int) -> Formulation:
    """Choose a formulation by name.

    Raises:
        DevicePlacementError: on an unknown name, or a horizon below 1.
    """
    if horizon < 1:
        raise DevicePlacementError(f"Got horizon={horizon}; an episode has at least 1 step.")
    return choose("formulation", name, _FORMULATIONS)(layout, horizon)


def unplaced(num_groups: int) -> Assignment:
    """No group has a device yet."""
    return np.full(num_groups, UNPLACED, dtype=np.int64)
