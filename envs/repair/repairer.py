"""Repairer: valid placements near a proposal, or drawn from probabilities."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
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
FEW_FAILURES = 12  # those of a search after which there are other ways
WALKED = 3  # rounds of a walk
CLOSER = 40  # searches of `nearest` before CP-SAT
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
        max_failures: dead ends after which a search gives up; memory limits make it bin packing.

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
        return self._draw(nothing, chances, generator)

    def uniform(self, generator: np.random.Generator) -> Repaired:
        """Draw a valid placement, each device evenly among those that are left; see `sample`."""
        return self.sample(self._even, generator)

    def fix(self, proposal: NDArray[np.integer] | list[int]) -> Repaired:
        """Return a valid placement that keeps what it can of a proposal, (num_groups,).

        Groups that contradict others by where they are proposed, in that data would go back, are
        left out, those with most contradictions first. The rest stays, as far as it goes together,
        and the others follow; one that can't stay goes to the nearest device that is left. Where
        that ends in dead ends, fewer groups are kept, or a valid placement that is known is moved
        towards the proposal. A valid proposal is returned as it is. Nothing is random.
        """
        return self._fix(self._checked(proposal))

    def resample(
        self, proposal: NDArray[np.integer] | list[int], generator: np.random.Generator
    ) -> Repaired:
        """Return a valid placement that keeps what it can of a proposal, and draws the rest.

        As `fix`, but groups are visited in random order, and one that can't stay is drawn evenly.
        """
        return self._draw(self._checked(proposal), self._even, generator)

    def nearest(self, proposal: NDArray[np.integer] | list[int], seconds: float = 10.0) -> Repaired:
        """Return the valid placement with the fewest groups elsewhere than proposed.

        What `fix` returns is improved by a local search, and then by CP-SAT, which can prove that
        there is nothing nearer.

        Args:
            proposal: (num_groups,) device numbers.
            seconds: limit of CP-SAT, after which the nearest one found is returned; 0: it does not
                run, and the result is the same on every machine.
        """
        wanted = self._checked(proposal)
        found = self.fix(wanted)
        if found.impossible or (found.found and not found.changes):
            return found
        if found.found:
            found = self._closer(found, wanted)
        if not seconds:
            return found
        start = found.assignment if found.found else None
        nearer, impossible = nearest_valid(self.costs, self._supported, wanted, start, seconds)
        if nearer is None:
            return found if found.found else Repaired(wanted, False, impossible=impossible)
        changes = int((nearer != wanted).sum())
        return (
            found if found.found and found.changes <= changes else Repaired(nearer, True, changes)
        )

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
        """Repair a proposal in one of the ways `REPAIRS`, ``nearest`` without CP-SAT."""
        if way == "fix":
            return self.fix(proposal)
        if way == "sample":
            return self.resample(proposal, generator)
        if way == "nearest":
            return self.nearest(proposal, seconds=0.0)
        return Repaired(self._checked(proposal), True)

    @functools.cached_property
    def allowed_at_first(self) -> Bool:
        """Devices that each group may go to while none has one, (num_groups, num_devices)."""
        groups = self.costs.num_groups
        return self._allowed(np.full(groups, NO_DEVICE), np.arange(groups))

    def allowed(self, placed: Assignment, group: int) -> Bool:
        """Return the devices that a group may go to, (num_devices,).

        A device is left out only if no valid placement has it. One that is left may still lead
        nowhere: that there is room for everything, say, is not searched for here.

        Args:
            placed: (num_groups,) device numbers so far; -1 for none.
            group: to place next.
        """
        found: Bool = self._allowed(np.asarray(placed, dtype=np.int64), np.array([group]))[0]
        return found

    def _allowed(self, placed: Int64, asked: Int64) -> Bool:
        """Return the devices that groups may go to, (num_asked, num_devices)."""
        from device_placement.envs.repair.kernels import allowed_devices

        with interrupts_later():
            found: Bool = allowed_devices(self.frame, placed, asked)
        return found

    def _checked(self, proposal: NDArray[np.integer] | list[int]) -> Int64:
        wanted = np.asarray(proposal, dtype=np.int64)
        if wanted.shape != (self.costs.num_groups,):
            raise DevicePlacementError(
                f"Got a proposal of shape {wanted.shape}; give one device number for each of the "
                f"{self.costs.num_groups} groups."
            )
        return wanted

    def _fix(self, wanted: Int64) -> Repaired:
        """Search with all groups held that agree, with few, in order; or walk from an anchor."""
        order, agreeing = self._agreeing_first(wanted)
        attempts = [(order, agreeing), (order, agreeing // 4), (self._in_order, 0)]
        found = self._attempt(attempts, wanted, self._even, None)
        if found.found or found.impossible:
            return found
        if not self._anchors:
            return self._search_twice(wanted, self._even, None)
        start = max(self._anchors, key=lambda anchor: int((anchor == wanted).sum()))
        return self._walk(start, wanted, order, found.failures)

    def _draw(self, proposal: Int64, chances: Float64, generator: np.random.Generator) -> Repaired:
        """Search in random order, then in order; or walk from an anchor to what is drawn."""
        order = generator.permutation(len(proposal))
        attempts = [(order, 0), (self._in_order, 0)]
        found = self._attempt(attempts, proposal, chances, generator)
        if found.found or found.impossible:
            return found
        if not self._anchors:
            return self._search_twice(proposal, chances, generator)
        likely = np.where(self._runs, chances, 0.0).cumsum(axis=1)
        draws = generator.random((len(proposal), 1)) * likely[:, -1:]
        drawn = np.where(proposal < 0, (likely <= draws).sum(axis=1), proposal)
        start = self._anchors[generator.integers(len(self._anchors))]
        return self._walk(start, drawn, order, found.failures)

    def _attempt(
        self,
        attempts: Sequence[tuple[Int64, int]],
        proposal: Int64,
        chances: Float64,
        generator: np.random.Generator | None,
    ) -> Repaired:
        """Search in orders with numbers of groups to hold, until one search finds something."""
        few, failures = min(FEW_FAILURES, self.max_failures), 0
        for order, held in attempts:
            found = self._search(order, held, proposal, chances, generator, few)
            failures += found.failures
            if found.found or found.impossible:
                break
        return dataclasses.replace(found, failures=failures)

    def _walk(self, start: Int64, wanted: Int64, order: Int64, failures: int = 0) -> Repaired:
        """Return where a walk from a valid placement towards a wanted one ends."""
        found = self._approach(start, wanted, order)
        return Repaired(found, True, int((found != wanted).sum()), failures)

    def _closer(self, found: Repaired, wanted: Int64) -> Repaired:
        """Return a valid placement with fewer groups elsewhere than wanted, if one is found.

        First walks start from a valid placement and from the anchors. Then, again and again, a
        group that is elsewhere and those near it in order are searched for again, while all others
        are held. Nothing is random from call to call.
        """
        order, _ = self._agreeing_first(wanted)
        starts = [found.assignment, *self._anchors]
        best = min((self._walk(one, wanted, order) for one in starts), key=lambda one: one.changes)
        generator, groups = np.random.default_rng(0), len(wanted)
        few, size = min(FEW_FAILURES, self.max_failures), max(6, groups // 8)
        for _ in range(CLOSER):
            elsewhere = np.flatnonzero(best.assignment != wanted)
            if not elsewhere.size:
                break
            group = int(generator.choice(elsewhere))
            near = np.argsort(np.abs(self._in_order - group), kind="stable")
            freed, held = near[: generator.integers(2, size + 1)], np.ones(groups, dtype=np.bool_)
            held[freed] = False
            aim = np.where(held, best.assignment, wanted)
            visited = np.concatenate([self._in_order[held], freed])
            one = self._search(visited, int(held.sum()), aim, self._even, None, few)
            changes = int((one.assignment != wanted).sum())
            if one.found and changes < best.changes:
                best = Repaired(one.assignment, True, changes)
        return dataclasses.replace(best, failures=found.failures)

    def _approach(self, start: Int64, wanted: Int64, order: Int64) -> Int64:
        from device_placement.envs.repair.approach import approach

        with interrupts_later():
            found: Int64 = approach(
                self._ground, start, wanted, order, self.costs.num_devices, WALKED
            )
        return found

    @functools.cached_property
    def _ground(self) -> Ground:
        from device_placement.envs.repair.approach import make_ground

        return make_ground(self.frame)

    @functools.cached_property
    def _anchors(self) -> list[Int64]:
        """Valid placements to walk from: balanced ones on all devices, half of them, and so on."""
        found, devices = [], self.costs.num_devices
        while devices:
            shares = self._even_shares(devices)
            one = self._search(self._in_order, 0, shares, self._even, None, self.max_failures)
            if one.found:
                found.append(one.assignment)
            if one.impossible:
                break
            devices //= 2
        return found

    def _even_shares(self, devices: int) -> Int64:
        """Return groups split in their order into even shares of work on the first devices."""
        times = np.where(self._runs, self.costs.compute_s, 0.0)
        # Groups without work count, too, if only a little.
        work = times.sum(axis=1) / np.maximum(self._runs.sum(axis=1), 1) + 1e-12
        share = (work.cumsum() - work / 2) / work.sum()
        return np.asarray(share * devices, dtype=np.int64)

    def _agreeing_first(self, proposal: Int64) -> tuple[Int64, int]:
        """Order groups such that those come first whose proposed devices don't contradict others.

        Two groups contradict each other if data of the first gets to the second, but not to its
        device. The group with the most contradictions is left out, again and again, until there
        are none.

        Returns:
            (num_groups,) groups: those that agree, the middle one first; then the others, the last
            one left out first. And how many agree.
        """
        groups, frame = self._in_order, self.frame
        possible = (proposal >= 0) & (proposal < self.costs.num_devices)
        possible &= self._runs[groups, np.where(possible, proposal, 0)]
        left_out = groups[~possible].tolist()
        if "acyclic" in self.costs.constraints:
            against = frame.leads & (proposal[:, None] > proposal)
            against |= against.T
            against[~possible] = False
            against[:, ~possible] = False
            number = against.sum(axis=1)
            while number.max():
                worst = int(number.argmax())
                left_out.append(worst)
                number -= against[worst]
                number[worst] = 0
                against[:, worst] = False
        agrees = np.ones(len(groups), dtype=np.bool_)
        agrees[left_out] = False
        first = self._spread[agrees[self._spread]]
        return np.concatenate([first, np.array(left_out[::-1], dtype=np.int64)]), len(first)

    def _search(
        self,
        order: Int64,
        held: int,
        proposal: Int64,
        chances: Float64,
        generator: np.random.Generator | None,
        max_failures: int,
    ) -> Repaired:
        from device_placement.envs.repair.kernels import FOUND, NONE_EXISTS, search

        draws = np.zeros(1) if generator is None else generator.random(2 * len(proposal))
        with interrupts_later():
            status, failures, found = search(
                self.frame,
                order,
                held,
                proposal,
                chances,
                draws,
                generator is not None,
                max_failures,
            )
        if status == FOUND:
            return Repaired(found, True, int((found != proposal).sum()), failures)
        return Repaired(proposal, False, failures=failures, impossible=status == NONE_EXISTS)

    def _search_twice(
        self, proposal: Int64, chances: Float64, generator: np.random.Generator | None
    ) -> Repaired:
        """Search in random order, or else the middle first; then in the order of the groups.

        In the order of the groups, dead ends are rare.
        """
        first = self._spread if generator is None else generator.permutation(len(proposal))
        failures = 0
        for order in (first, self._in_order):
            found = self._search(order, 0, proposal, chances, generator, self.max_failures)
            failures += found.failures
            if found.found or found.impossible:
                break
        return dataclasses.replace(found, failures=failures)


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
