"""How the episodes of many copies build their placements: `formulations.py`, a row a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from device_placement.envs.coarsening import CoarseGraph
from device_placement.envs.formulations import Formulation
from device_placement.envs.observation import UNPLACED, Layout

Numbers = NDArray[np.int64]  # (num_envs,)
Assignments = NDArray[np.int64]  # (num_envs, max_groups) device of each group, or UNPLACED
Flags = NDArray[np.bool_]  # (num_envs,)


class VectorFormulation(Protocol):
    """How actions become placements.

    `graph_ids` are the models of the copies, `steps` count the actions of their episodes.
    """

    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Numbers, steps: Numbers
    ) -> Assignments:
        """The assignments that the actions lead to, a new array; groups of padding unplaced."""

    def cursors(self, graph_ids: Numbers, steps: Numbers) -> Numbers | None:
        """The group that each next action places, -1 behind the last; None: it is not fixed."""

    def masks(self, graph_ids: Numbers, steps: Numbers) -> NDArray[np.bool_]:
        """(num_envs, num_actions) the actions allowed next."""

    def is_due(self, graph_ids: Numbers, steps: Numbers) -> Flags:
        """Whether the placements are evaluated after this step."""

    def ends(self, graph_ids: Numbers, steps: Numbers) -> tuple[Flags, Flags]:
        """Whether the episodes terminate, and whether they are truncated, after this step."""


@dataclass(frozen=True)
class _PerModel(VectorFormulation):
    """What both have: sizes by model."""

    graphs: Sequence[CoarseGraph]  # one a model
    layout: Layout
    formulation: Formulation  # of one copy
    horizon: int

    @cached_property
    def _sizes(self) -> Numbers:
        """(num_graphs,) groups of each model."""
        return np.array([one.num_groups for one in self.graphs])


@dataclass(frozen=True)
class AssignMany(_PerModel):
    """An action is a whole placement."""

    @override
    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Numbers, steps: Numbers
    ) -> Assignments:
        real = np.arange(assignments.shape[1]) < self._sizes[graph_ids, None]
        return np.where(real, actions, UNPLACED)

    @override
    def cursors(self, graph_ids: Numbers, steps: Numbers) -> None:
        return None

    @override
    def masks(self, graph_ids: Numbers, steps: Numbers) -> NDArray[np.bool_]:
        return np.asarray(self._masks[graph_ids])

    @override
    def is_due(self, graph_ids: Numbers, steps: Numbers) -> Flags:
        return np.ones(len(steps), dtype=np.bool_)

    @override
    def ends(self, graph_ids: Numbers, steps: Numbers) -> tuple[Flags, Flags]:
        last = steps >= self.horizon
        return last & (self.horizon == 1), last & (self.horizon > 1)

    @cached_property
    def _masks(self) -> NDArray[np.bool_]:
        """(num_graphs, max_groups * num_devices)."""
        return np.stack([self.formulation.masks(one.supported, 0) for one in self.graphs])


@dataclass(frozen=True)
class ConstructMany(_PerModel):
    """An action is the device of the next group in topological order."""

    @override
    def act(
        self, assignments: Assignments, actions: NDArray[Any], graph_ids: Numbers, steps: Numbers
    ) -> Assignments:
        result = assignments.copy()
        result[np.arange(len(result)), steps - 1] = actions
        return result

    @override
    def cursors(self, graph_ids: Numbers, steps: Numbers) -> Numbers:
        return np.where(steps < self._sizes[graph_ids], steps, -1)

    @override
    def masks(self, graph_ids: Numbers, steps: Numbers) -> NDArray[np.bool_]:
        return np.asarray(self._masks[graph_ids, steps])

    @override
    def is_due(self, graph_ids: Numbers, steps: Numbers) -> Flags:
        return np.asarray(steps == self._sizes[graph_ids])

    @override
    def ends(self, graph_ids: Numbers, steps: Numbers) -> tuple[Flags, Flags]:
        return steps == self._sizes[graph_ids], np.zeros(len(steps), dtype=np.bool_)

    @cached_property
    def _masks(self) -> NDArray[np.bool_]:
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
    """Choose a formulation by name.

    Args:
        name: ``assign`` or ``construct``.
        graphs: of the models.
        layout: the sizes that all of them are padded to.
        formulation: the same of one copy.
        horizon: steps of an episode in ``assign``.
    """
    return _MANY[name](graphs, layout, formulation, horizon)
