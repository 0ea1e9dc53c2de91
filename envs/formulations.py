"""Formulations, for one copy and for many: what an action changes, and when it is evaluated.

Each is a small record of pure functions; the environment keeps the state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from device_placement.envs.arrays import Assignment, Assignments, Bool, Int64
from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.observation import UNPLACED, Layout, device_masks


class Formulation(Protocol):
    """Rules by which actions become placements; `step` counts the episode's actions so far."""

    starts_placed: bool  # whether an episode starts from a whole placement
    undoes_invalid: bool  # whether an invalid placement is undone

    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        """Return the assignment that an action leads to, as a new array."""

    def cursor(self, num_groups: int, step: int) -> int | None:
        """Return the group that the next action places, if that is fixed."""

    def masks(self, supported: Bool, step: int) -> Bool:
        """Return the flat mask of the actions allowed next, as MaskablePPO expects it."""

    def is_due(self, num_groups: int, step: int) -> bool:
        """Return whether the placement is evaluated after this step."""

    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        """Return whether the episode terminates, and whether it is truncated, after this step."""


@dataclass(frozen=True)
class _WholePlacements(Formulation):
    """Base of `assign` and `refine`, in which every step leads to a whole placement."""

    layout: Layout
    horizon: int

    @override
    def cursor(self, num_groups: int, step: int) -> int | None:
        return None

    @override
    def masks(self, supported: Bool, step: int) -> Bool:
        return device_masks(supported, self.layout).reshape(-1)

    @override
    def is_due(self, num_groups: int, step: int) -> bool:
        return True


@dataclass(frozen=True)
class Assign(_WholePlacements):
    """Formulation in which an action is a whole placement, for `horizon` proposals."""

    starts_placed = False
    undoes_invalid = False

    @override
    def act(self, assignment: Assignment, action: Any, step: int) -> Assignment:
        return np.array(action[: assignment.size])

    @override
    def ends(self, num_groups: int, step: int) -> tuple[bool, bool]:
        last = step >= self.horizon
        return last and self.horizon == 1, last and self.horizon > 1


@dataclass(frozen=True)
class Construct(Formulation):
    """Formulation in which an action is the device of the next group in topological order."""

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
    def masks(self, supported: Bool, step: int) -> Bool:
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
    """Formulation in which an action moves one group to a device, for `horizon` moves."""

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
    """Return a formulation by name.

    Raises:
        DevicePlacementError: on an unknown name, or a horizon below 1.
    """
    if horizon < 1:
        raise DevicePlacementError(f"Got horizon={horizon}; an episode has at least 1 step.")
    return choose("formulation", name, _FORMULATIONS)(layout, horizon)


def check_actions(actions: Any, shape: tuple[int, ...] | None, num_choices: int) -> Int64:
    """Check that actions are whole numbers of their space, and return them as an array.

    Args:
        actions: of one copy or many.
        shape: the required shape.
        num_choices: they are numbered from 0 to this, exclusively.

    Raises:
        PlacementError: when the shape or the type is wrong, or a number is outside.
    """
    try:
        chosen = np.asarray(actions)
    except ValueError:  # rows of different lengths
        chosen = np.empty(0, dtype=np.object_)
    if chosen.shape != shape or chosen.dtype.kind not in "iu":
        raise PlacementError(
            f"Got actions of shape {chosen.shape} and type {chosen.dtype}; give whole numbers in "
            f"shape {shape}, as action_space.sample() does."
        )
    wrong = (chosen < 0) | (chosen >= num_choices)
    if wrong.any():
        raise PlacementError(
            f"Got {chosen[wrong][0]} in an action; allowed are 0 to {num_choices - 1}."
        )
    return chosen.astype(np.int64)


def unplaced(num_groups: int) -> Assignment:
    """Return an assignment in which no group has a device yet."""
    return np.full(num_groups, UNPLACED, dtype=np.int64)


class VectorFormulation(Protocol):
    """Rules by which the actions of many copies become placements.

    `graph_ids` are the models of the copies, `steps` count the actions of their episodes.
    """

    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Int64, steps: Int64
    ) -> Assignments:
        """Return the assignments that the actions lead to, as a new array with padding unplaced."""

    def cursors(self, graph_ids: Int64, steps: Int64) -> Int64 | None:
        """Return the group that each next action places, -1 after the last; None: it is not set."""

    def masks(self, graph_ids: Int64, steps: Int64) -> Bool:
        """Return the mask of the actions allowed next, (num_envs, num_actions)."""

    def is_due(self, graph_ids: Int64, steps: Int64) -> Bool:
        """Return whether the placements are evaluated after this step."""

    def ends(self, graph_ids: Int64, steps: Int64) -> tuple[Bool, Bool]:
        """Return whether the episodes terminate, and whether they are truncated, after the step."""


@dataclass(frozen=True)
class _PerModel(VectorFormulation):
    """Base of both, with the sizes of each model."""

    graphs: Sequence[CoarseGraph]  # one per model
    layout: Layout
    formulation: Formulation  # of one copy
    horizon: int

    @cached_property
    def _sizes(self) -> Int64:
        """(num_graphs,) groups of each model."""
        return np.array([one.num_groups for one in self.graphs])


@dataclass(frozen=True)
class AssignMany(_PerModel):
    """`Assign` for many copies."""

    @override
    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Int64, steps: Int64
    ) -> Assignments:
        real = np.arange(assignments.shape[1]) < self._sizes[graph_ids, None]
        return np.where(real, actions, UNPLACED)

    @override
    def cursors(self, graph_ids: Int64, steps: Int64) -> None:
        return None

    @override
    def masks(self, graph_ids: Int64, steps: Int64) -> Bool:
        return np.asarray(self._masks[graph_ids])

    @override
    def is_due(self, graph_ids: Int64, steps: Int64) -> Bool:
        return np.ones(len(steps), dtype=np.bool_)

    @override
    def ends(self, graph_ids: Int64, steps: Int64) -> tuple[Bool, Bool]:
        last = steps >= self.horizon
        return last & (self.horizon == 1), last & (self.horizon > 1)

    @cached_property
    def _masks(self) -> Bool:
        """(num_graphs, max_groups * num_devices)."""
        return np.stack([self.formulation.masks(one.supported, 0) for one in self.graphs])


@dataclass(frozen=True)
class ConstructMany(_PerModel):
    """`Construct` for many copies."""

    @override
    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Int64, steps: Int64
    ) -> Assignments:
        result = assignments.copy()
        result[np.arange(len(result)), steps - 1] = actions
        return result

    @override
    def cursors(self, graph_ids: Int64, steps: Int64) -> Int64:
        return np.where(steps < self._sizes[graph_ids], steps, -1)

    @override
    def masks(self, graph_ids: Int64, steps: Int64) -> Bool:
        return np.asarray(self._masks[graph_ids, steps])

    @override
    def is_due(self, graph_ids: Int64, steps: Int64) -> Bool:
        return np.asarray(steps == self._sizes[graph_ids])

    @override
    def ends(self, graph_ids: Int64, steps: Int64) -> tuple[Bool, Bool]:
        return steps == self._sizes[graph_ids], np.zeros(len(steps), dtype=np.bool_)

    @cached_property
    def _masks(self) -> Bool:
        """(num_graphs, max_groups + 1, num_devices)."""
        steps = range(self.layout.max_groups + 1)
        return np.array(
            [[self.formulation.masks(one.supported, step) for step in steps] for one in self.graphs]
        )


_MANY: dict[str, Callable[[Sequence[CoarseGraph], Layout, Formulation, int], VectorFormulation]] = {
    "assign": AssignMany,
    "construct": ConstructMany,
}


def make_vector_formulation(
    name: str,
    graphs: Sequence[CoarseGraph],
    layout: Layout,
    formulation: Formulation,
    horizon: int,
) -> VectorFormulation:
    """Return a formulation for many copies by name.

    Args:
        name: ``assign`` or ``construct``.
        graphs: one per model.
        layout: the sizes that all of them are padded to.
        formulation: the formulation of one copy.
        horizon: steps of an episode in ``assign``.
    """
    return _MANY[name](graphs, layout, formulation, horizon)
