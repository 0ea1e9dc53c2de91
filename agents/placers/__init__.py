"""Placers by name: algorithms that search for a placement with an evaluator and a budget."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from device_placement.agents.placers.base import check_names
from device_placement.envs.errors import choose

if TYPE_CHECKING:
    from device_placement.agents.placers.base import Placer


@dataclass(frozen=True)
class PlacerEntry:
    """Module, class and summary of a placer."""

    module: str  # in this package
    name: str  # of its class
    summary: str
    needs_costs: bool = False  # plans from costs, so it works with the simulator only
    sees_costs: bool = False  # sees costs: the simulator's, or those of profiled runs

    def load(self) -> type[Any]:
        """Import the module and return the class."""
        loaded: type[Any] = getattr(importlib.import_module(f"{__name__}.{self.module}"), self.name)
        return loaded


PLACERS: Mapping[str, PlacerEntry] = {
    "single": PlacerEntry("baselines", "BestSingle", "the best single device"),
    "automatic": PlacerEntry("baselines", "Automatic", "OpenVINO HETERO's automatic choice"),
    "random": PlacerEntry("baselines", "RandomSearch", "random placements"),
    "local_search": PlacerEntry(
        "local_search", "LocalSearch", "one move at a time while it helps, then a restart"
    ),
    "annealing": PlacerEntry("annealing", "Annealing", "simulated annealing"),
    "cross_entropy": PlacerEntry("cross_entropy", "CrossEntropy", "the cross-entropy method"),
    "genetic": PlacerEntry("genetic", "Genetic", "a genetic algorithm"),
    "posterior_sampling": PlacerEntry(
        "posterior_sampling.placer", "PosteriorSampling", "learns the costs and plans with them"
    ),
    "pretrained": PlacerEntry(
        "pretrained.placer",
        "Pretrained",
        "a policy trained on generated problems, which learns from its best samples",
        sees_costs=True,
    ),
    "heft": PlacerEntry("list_scheduling", "Heft", "earliest finish time, by upward rank", True),
    "greedy": PlacerEntry(
        "greedy", "Greedy", "each group where the schedule's time grows least", True
    ),
    "lookahead": PlacerEntry(
        "greedy", "Lookahead", "each group where an estimate for all groups is least", True
    ),
    "m_etf": PlacerEntry(
        "list_scheduling", "MemoryEtf", "earliest start time within the memory of devices", True
    ),
    "stages": PlacerEntry("stages", "Stages", "balanced contiguous stages, one per device", True),
    "contiguous": PlacerEntry(
        "exact.contiguous",
        "ContiguousSplits",
        "exact for contiguous splits, by dynamic programming",
        True,
    ),
    "min_cut": PlacerEntry(
        "exact.min_cut", "MinimumCut", "exact for two devices, by minimum cut", True
    ),
    "cp_sat": PlacerEntry("exact.cp_sat", "CpSat", "exact, by constraint programming", True),
}
"""Name -> placer."""


def make_placer(name: str, **options: Any) -> Placer:
    """Make a placer by name.

    Args:
        name: a name of `PLACERS`.
        options: the fields of its class.

    Raises:
        DevicePlacementError: on an unknown name or option, or a value out of range.

    >>> make_placer("genetic", population=20).population
    20
    """
    loaded = choose("placer", name, PLACERS).load()
    check_names(name, loaded, options)
    placer: Placer = loaded(**options)
    return placer
