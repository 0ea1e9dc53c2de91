"""Drawing of placements from a construct network: many rows of several problems at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from stable_baselines3.common.type_aliases import TensorDict
from torch import Tensor

from device_placement.agents.placers.search_space import SearchSpace
from device_placement.agents.policies.construct import (
    ConstructNetwork,
    Encoded,
    usable_devices,
)
from device_placement.envs.arrays import Bool, Int64
from device_placement.envs.cost_features import KnownCosts, PartialFeatures, cost_arrays
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.observation import Layout, device_masks

FREE = -1  # in place of a device: the policy decides


@dataclass(frozen=True)
class SeenProblem:
    """Problem as the policy sees it: the groups, where they may go, and costs."""

    coarse: CoarseGraph
    known: KnownCosts
    space: SearchSpace

    @property
    def num_groups(self) -> int:
        """Number of groups to place."""
        return self.coarse.num_groups


@dataclass(frozen=True)
class Drawn:
    """Placements, and what the policy saw when it made them, one entry per row and group."""

    placements: Int64  # (num_rows, max_groups); FREE beyond a problem's groups
    row: Tensor  # (num_entries,) long
    problem: Tensor  # (num_entries,) long
    group: Tensor  # (num_entries,) long
    partial: Tensor  # (num_entries, max_devices, NUM_PARTIAL)
    allowed: Tensor  # (num_entries, max_devices) bool
    device: Tensor  # (num_entries,) long

    def of_rows(self, rows: Sequence[int] | Int64) -> Drawn:
        """Return the part of some rows, which keep their numbers."""
        wanted = torch.isin(self.row, torch.as_tensor(np.asarray(rows)))
        entries = (self.row, self.problem, self.group, self.partial, self.allowed, self.device)
        return Drawn(self.placements, *(one[wanted] for one in entries))


def joined(parts: Sequence[Drawn]) -> Drawn:
    """Join placements of the same problems; rows are numbered on."""
    first = np.cumsum([0, *(len(one.placements) for one in parts)])
    rows = [one.row + int(start) for one, start in zip(parts, first[:-1], strict=True)]
    names = ("problem", "group", "partial", "allowed", "device")
    return Drawn(
        np.concatenate([one.placements for one in parts]),
        torch.cat(rows),
        *(torch.cat([getattr(one, name) for one in parts]) for name in names),
    )


def static_arrays(problems: Sequence[SeenProblem]) -> TensorDict:
    """Return the constant arrays of problems that a network reads, padded to the largest."""
    graphs = [one.coarse for one in problems]
    layout = Layout.of(
        graphs, 0, max(one.known.costs.num_devices for one in problems), costs=True, partial=True
    )
    found: dict[str, list[Tensor]] = {}
    for one in problems:
        arrays = cost_arrays(one.known, one.coarse, layout)
        edges = one.coarse.num_edges
        arrays["edge_index"] = np.zeros((2, layout.max_edges), dtype=np.int32)
        arrays["edge_index"][:, :edges] = one.coarse.edge_index
        arrays["edge_mask"] = (np.arange(layout.max_edges) < edges).astype(np.int8)
        arrays["node_mask"] = (np.arange(layout.max_groups) < one.num_groups).astype(np.int8)
        arrays["device_mask"] = device_masks(one.coarse.supported, layout).astype(np.int8)
        for key, array in arrays.items():
            found.setdefault(key, []).append(torch.from_numpy(array))
    return {key: torch.stack(ones) for key, ones in found.items()}


def draw(
    network: ConstructNetwork,
    problems: Sequence[SeenProblem],
    encoded: Encoded,
    copies: int,
    generator: torch.Generator | None = None,
    given: Int64 | None = None,
) -> Drawn:
    """Construct placements, several of each problem.

    Rows are the copies of the first problem, then those of the second, and so on.

    Args:
        network: of the policy.
        problems: to place.
        encoded: the network's encoding of them.
        copies: placements of each.
        generator: of the samples; None: the likeliest device each time.
        given: (len(problems) * copies, max_groups) devices; where FREE, the policy
            decides.
    """
    num_rows = len(problems) * copies
    of = np.repeat(np.arange(len(problems)), copies)
    sizes = np.array([one.num_groups for one in problems])[of]
    steps = int(sizes.max())
    features = PartialFeatures([one.known for one in problems], num_rows)
    units = _Units(problems, of, features.partial.num_devices.max())
    placements = np.full((num_rows, steps), FREE, dtype=np.int64)
    rows = np.arange(num_rows)
    seen = features.begin(rows, of)
    entries: list[tuple[Tensor, ...]] = []
    for step in range(steps):
        live = sizes[rows] > step
        rows, seen = rows[live], seen[live]
        partial, problem = torch.from_numpy(seen), torch.from_numpy(of[rows])
        allowed = usable_devices(torch.from_numpy(units.allowed(rows, step)), partial)
        forced = np.full(len(rows), FREE) if given is None else given[rows, step]
        devices = forced
        if (forced == FREE).any():
            at = problem, step
            known = encoded.common[at], encoded.pairs[at], encoded.skip[problem]
            drawn = _choose(network, known, partial, allowed, generator)
            devices = np.where(forced == FREE, drawn, forced)
        placements[rows, step] = devices
        units.placed(rows, step, devices)
        chosen = torch.from_numpy(devices)
        entries.append(
            (
                torch.from_numpy(rows),
                problem,
                torch.full_like(problem, step),
                partial,
                allowed,
                chosen,
            )
        )
        seen = features.place(rows, devices)
    return Drawn(placements, *(torch.cat(parts) for parts in zip(*entries, strict=True)))


def _choose(
    network: ConstructNetwork,
    known: tuple[Tensor, Tensor, Tensor],
    partial: Tensor,
    allowed: Tensor,
    generator: torch.Generator | None,
) -> Int64:
    """Return a device for the next group of each row, (batch,)."""
    with torch.no_grad():
        logits, _ = network.head(*known, partial, allowed)
        if generator is not None:  # the greatest with Gumbel noise is a sample
            noise = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
            logits = logits - torch.log(-torch.log(noise))
        chosen: Int64 = logits.argmax(dim=1).numpy()
        return chosen


class _Units:
    """Devices that each row's next group may go to; the first group of a unit decides for all.

    Args:
        problems: what is placed.
        of: (num_rows,) the problem of each row.
        max_devices: most devices of a problem.
    """

    def __init__(self, problems: Sequence[SeenProblem], of: Int64, max_devices: int) -> None:
        most = max(one.num_groups for one in problems)
        self._of = of
        # (num_problems, max_groups, max_devices) and (num_problems, max_groups)
        self._allowed = np.zeros((len(problems), most, max_devices), dtype=np.bool_)
        self._first = np.tile(np.arange(most), (len(problems), 1))
        self._devices = np.full((len(of), most), FREE, dtype=np.int64)
        for number, one in enumerate(problems):
            groups, devices = one.num_groups, one.space.allowed.shape[1]
            self._allowed[number, :groups, :devices] = one.space.allowed[one.space.unit]
            self._first[number, :groups] = one.space.first[one.space.unit]
        self._alone = bool((self._first == np.arange(most)).all())
        self._problems = problems

    def allowed(self, rows: Int64, group: int) -> Bool:
        """Return the devices that a group may go to, (len(rows), max_devices)."""
        allowed: Bool = self._allowed[self._of[rows], group]
        if not self._alone:
            device = self._devices[rows, self._first[self._of[rows], group]]
            fixed = np.arange(allowed.shape[1]) == device[:, None]
            allowed = np.asarray(np.where((device == FREE)[:, None], allowed, fixed))
        return self._constrained(allowed, rows, group)

    def _constrained(self, allowed: Bool, rows: Int64, group: int) -> Bool:
        """Return what constraints leave; where they leave nothing, there is a dead end: all."""
        if all(one.space.repairer is None for one in self._problems):
            return allowed
        result, known = allowed.copy(), dict[bytes, Bool]()
        for number, (row, problem) in enumerate(zip(rows, self._of[rows], strict=True)):
            one = self._problems[problem]
            if one.space.repairer is None:
                continue
            placed = self._devices[row, : one.num_groups]
            key = placed.tobytes()  # many rows begin alike
            if key not in known:
                known[key] = one.space.repairer.allowed(placed, group)
            devices = known[key].size
            both = allowed[number, :devices] & known[key]
            if both.any():
                result[number, :devices] = both
        return result

    def placed(self, rows: Int64, group: int, devices: Int64) -> None:
        """Note where a group was placed."""
        self._devices[rows, group] = devices


def log_probabilities(network: ConstructNetwork, encoded: Encoded, drawn: Drawn) -> Tensor:
    """Return the logarithms of the probabilities of all devices, (num_entries, max_devices).

    Args:
        network: of the policy.
        encoded: its encoding of the problems.
        drawn: entries to evaluate.
    """
    at = drawn.problem, drawn.group
    known = encoded.common[at], encoded.pairs[at], encoded.skip[drawn.problem]
    logits, _ = network.head(*known, drawn.partial, drawn.allowed)
    return torch.log_softmax(logits, dim=1)
