"""Repairer: valid placements near a proposal, or drawn from probabilities."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Assignment, Bool, Float64, Int64
from device_placement.envs.costs import Costs
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.jit import interrupts_later
from device_placement.envs.repair.nearest import nearest_valid, smallest_conflict

if TYPE_CHECKING:
    from device_placement.envs.repair.approach import Ground
    from device_placement.envs.repair.kernels import Frame

NO_DEVICE = -1
MAX_FAILURES = 200  # dead ends of each search
FEW_FAILURES = 2  # those of a search where a valid placement is known, from which one can walk
WALKED = 3  # times that a walk tries each group at most
REPAIRS = ("none", "fix", "sample", "nearest")
"""How an environment may repair a placement before it is evaluated."""


@dataclass(frozen=True)
class Repaired:
    """Placement that satisfies the constraints, or why there is none."""

    assignment: Assignment  # (num_groups,); the proposal where nothing was found
    found: bool
    changes: int = 0  # groups that are elsewhere than proposed
    failures: int = 0  # dead ends of the search
    impossible: bool = False  # no valid placement exists


class Repairer:
    """Search for placements that satisfy the constraints, memory limits and colours of costs.

    Args:
        costs: of the groups.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.
        max_failures: dead ends after which a search gives up, where no balanced placement is known;
            memory limits make it bin packing.

    Raises:
        DeviceError: when there are too many devices.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator(
    ...     "diamond", "NPU.0,NPU.1,NPU.2", evaluator="simulator", hardware="mcm",
    ...     schedule="pipelined", constraints="acyclic,no_skip"
    ... )
    >>> Repairer(evaluator.costs).fix([0, 2, 0, 2]).assignment.tolist()
    [0, 1, 0, 2]
    """

    def __init__(
        self, costs: Costs, supported: Bool | None = None, max_failures: int = MAX_FAILURES
    ) -> None:
        self.costs, self.max_failures = costs, max_failures
        self._supported = supported
        groups = costs.num_groups
        self._in_order = np.arange(groups)
        self._spread = _spread_order(groups)
        self._even = np.ones((groups, costs.num_devices))
        self._runs = np.isfinite(costs.compute_s)
        if supported is not None:
            self._runs &= supported

    @functools.cached_property
    def frame(self) -> Frame:
        """The problem as the compiled search takes it."""
        from device_placement.envs.repair.frame import make_frame

        with interrupts_later():  # numba is imported
            return make_frame(self.costs, self._supported)

    def sample(self, probabilities: Float64, generator: np.random.Generator) -> Repaired:
        """Draw a valid placement.

        Groups are visited in random order; the device of each is drawn by its probabilities, among
        the devices that the groups before it have left. Every valid placement whose devices have
        probabilities above 0 can be drawn.

        Args:
            probabilities: (num_groups, num_devices), 0 or more; where all devices that are left
                have 0, they are drawn evenly.
            generator: of all random choices.
        """
        chances = np.ascontiguousarray(probabilities, dtype=np.float64)
        nothing = np.full(self.costs.num_groups, NO_DEVICE)
        return self._search(nothing, chances, generator)

    def uniform(self, generator: np.random.Generator) -> Repaired:
        """Draw a valid placement, each device evenly among those that are left; see `sample`."""
        return self.sample(self._even, generator)

    def fix(self, proposal: NDArray[np.integer] | list[int]) -> Repaired:
        """Return a valid placement that keeps what it can of a proposal, (num_groups,).

        Groups are visited in a fixed order, the middle one first. One that can't stay goes to the
        nearest device that is left. Where that ends in dead ends, a balanced placement is moved
        towards the proposal. A valid proposal is returned as it is. Nothing is random.
        """
        return self._search(self._checked(proposal), self._even, None)

    def resample(
        self, proposal: NDArray[np.integer] | list[int], generator: np.random.Generator
    ) -> Repaired:
        """Return a valid placement that keeps what it can of a proposal, and draws the rest.

        As `fix`, but groups are visited in random order, and one that can't stay is drawn evenly.
        """
        return self._search(self._checked(proposal), self._even, generator)

    def nearest(self, proposal: NDArray[np.integer] | list[int], seconds: float = 10.0) -> Repaired:
        """Return the valid placement with the fewest groups elsewhere than proposed, by CP-SAT.

        Args:
            proposal: (num_groups,) device numbers.
            seconds: limit; after it, the nearest one found, or that of `fix` if it is nearer.
        """
        wanted = self._checked(proposal)
        fixed = self.fix(wanted)
        if fixed.found and not fixed.changes:
            return fixed
        start = fixed.assignment if fixed.found else None
        found, impossible = nearest_valid(self.costs, self._supported, wanted, start, seconds)
        if found is None:
            return Repaired(wanted, False, impossible=impossible) if not fixed.found else fixed
        changes = int((found != wanted).sum())
        return fixed if fixed.found and fixed.changes <= changes else Repaired(found, True, changes)

    def balanced(self) -> Repaired:
        """Return a valid placement in which devices have even shares of work, if one is found.

        Groups are split in their order, by their mean time; what is not valid is repaired.
        """
        return self.fix(self._even_shares(self.costs.num_devices))

    def repair(
        self,
        way: str,
        proposal: NDArray[np.integer] | list[int],
        generator: np.random.Generator,
    ) -> Repaired:
        """Repair a proposal in one of the ways `REPAIRS`."""
        if way == "fix":
            return self.fix(proposal)
        if way == "sample":
            return self.resample(proposal, generator)
        if way == "nearest":
            return self.nearest(proposal)
        return Repaired(self._checked(proposal), True)

    @functools.cached_property
    def allowed_at_first(self) -> Bool:
        """Devices that each group may go to while none has one, (num_groups, num_devices)."""
        from device_placement.envs.repair.kernels import allowed_at_first

        with interrupts_later():
            found: Bool = allowed_at_first(self.frame)
        return found

    def allowed(self, placed: Assignment, group: int) -> Bool:
        """Return the devices that a group may go to, (num_devices,).

        A device is left out only if no valid placement has it. One that is left may still lead
        nowhere: that there is room for everything, say, is not searched for here.

        Args:
            placed: (num_groups,) device numbers so far; -1 for none.
            group: to place next.
        """
        from device_placement.envs.repair.kernels import allowed_next

        with interrupts_later():
            found: Bool = allowed_next(self.frame, np.asarray(placed, dtype=np.int64), group)
        return found

    def _checked(self, proposal: NDArray[np.integer] | list[int]) -> Int64:
        wanted = np.asarray(proposal, dtype=np.int64)
        if wanted.shape != (self.costs.num_groups,):
            raise DevicePlacementError(
                f"Got a proposal of shape {wanted.shape}; give one device number for each of the "
                f"{self.costs.num_groups} groups."
            )
        return wanted

    def _search(
        self, proposal: Int64, chances: Float64, generator: np.random.Generator | None
    ) -> Repaired:
        """Search in random order, or else the middle first; then in the order of the groups.

        In the order of the groups, dead ends are rare. After a few of them in both, walk from a
        valid placement that is known; where none is, search on.
        """
        groups = len(proposal)
        first = self._spread if generator is None else generator.permutation(groups)
        few = min(FEW_FAILURES, self.max_failures)
        failures = 0
        for limit in (few, self.max_failures):
            for order in (first, self._in_order):
                draws = np.zeros(1) if generator is None else generator.random(2 * groups)
                found = self._search_in(order, proposal, chances, draws, limit)
                failures += found.failures
                if found.found or found.impossible:
                    return dataclasses.replace(found, failures=failures)
            if self._anchors:
                return self._walk(first, proposal, chances, generator, failures)
        return Repaired(proposal, False, failures=failures)

    def _search_in(
        self, order: Int64, proposal: Int64, chances: Float64, draws: Float64, max_failures: int
    ) -> Repaired:
        """Search in one order; draws of length 1: nothing is drawn."""
        from device_placement.envs.repair.kernels import FOUND, NONE_EXISTS, search

        drawn = draws.size > 1
        with interrupts_later():
            status, failures, found = search(
                self.frame, order, proposal, chances, draws, drawn, max_failures
            )
        if status == FOUND:
            return Repaired(found, True, int((found != proposal).sum()), failures)
        return Repaired(proposal, False, failures=failures, impossible=status == NONE_EXISTS)

    def _walk(
        self,
        order: Int64,
        proposal: Int64,
        chances: Float64,
        generator: np.random.Generator | None,
        failures: int,
    ) -> Repaired:
        """Walk to the proposal from the nearest anchor; or from any, to what chances draw."""
        from device_placement.envs.repair.approach import approach

        if generator is None:
            wanted = proposal
            start = max(self._anchors, key=lambda anchor: int((anchor == wanted).sum()))
        else:
            likely = np.where(self._runs, chances, 0.0).cumsum(axis=1)
            draws = generator.random((len(proposal), 1)) * likely[:, -1:]
            wanted = np.where(proposal < 0, (likely <= draws).sum(axis=1), proposal)
            start = self._anchors[generator.integers(len(self._anchors))]
        with interrupts_later():
            found = approach(self._ground, start, wanted, order, self.costs.num_devices, WALKED)
        return Repaired(found, True, int((found != proposal).sum()), failures)

    @functools.cached_property
    def _ground(self) -> Ground:
        from device_placement.envs.repair.approach import make_ground

        return make_ground(self.frame)

    @functools.cached_property
    def _anchors(self) -> list[Int64]:
        """Valid placements to walk from: balanced ones on all devices, half of them, and so on."""
        found, devices = [], self.costs.num_devices
        while devices:
            one = self._search_in(
                self._in_order,
                self._even_shares(devices),
                self._even,
                np.zeros(1),
                self.max_failures,
            )
            if one.impossible:
                break
            if one.found:
                found.append(one.assignment)
            devices //= 2
        return found

    def _even_shares(self, devices: int) -> Int64:
        """Return the groups split in their order into even shares of work, by their mean time."""
        times = np.where(self._runs, self.costs.compute_s, 0.0)
        # Groups without work count, too, if only a little.
        work = times.sum(axis=1) / np.maximum(self._runs.sum(axis=1), 1) + 1e-12
        share = (work.cumsum() - work / 2) / work.sum()
        return np.asarray(share * devices, dtype=np.int64)


def _spread_order(groups: int) -> Int64:
    """Return the groups such that the first ones are far apart: the middle, the quarters, ...

    >>> _spread_order(7).tolist()
    [3, 1, 5, 0, 2, 4, 6]
    """
    order: list[int] = []
    spans = [(0, groups)]
    while spans:
        order += [(first + last) // 2 for first, last in spans]
        halves = [
            half
            for first, last in spans
            for half in ((first, (first + last) // 2), ((first + last) // 2 + 1, last))
        ]
        spans = [(first, last) for first, last in halves if first < last]
    return np.array(order, dtype=np.int64)


def check_satisfiable(costs: Costs, supported: Bool | None = None) -> None:
    """Check that some placement satisfies the constraints of costs.

    Args:
        costs: of the groups.
        supported: (num_groups, num_devices) devices that run each group, if the costs allow them.

    Raises:
        DevicePlacementError: when it is proven that none does; it names the smallest conflict.
    """
    if Repairer(costs, supported).balanced().found:
        return
    conflict = smallest_conflict(costs, supported)
    if conflict is None:  # there is one, or nobody knows
        return
    raise DevicePlacementError(_conflict(conflict, costs))


def _conflict(names: tuple[str, ...], costs: Costs) -> str:
    """Return the message about constraints that nothing satisfies."""
    if not names:
        return "Got a group that no device runs; add a device that does."
    if names == ("memory",):
        largest, total = float(costs.group_bytes.max()), float(costs.group_bytes.sum())
        limits = costs.reachable_bytes()
        if largest > limits.max():
            return (
                f"Got group {int(costs.group_bytes.argmax())} with {largest:.0f} bytes of weights; "
                f"no device holds more than {limits.max():.0f}. Give devices with more memory."
            )
        return (
            f"Got weights of {total:.0f} bytes that don't fit into the devices, which hold "
            f"{limits.sum():.0f}; give more devices, or some with more memory."
        )
    alone = f"the constraint {names[0]!r}"
    several = f"the constraints {', '.join(map(repr, names[:-1]))} and {names[-1]!r} together"
    return (
        f"No placement satisfies {alone if len(names) == 1 else several}; leave one out, or give "
        "other devices."
    )
