"""Preset records: an agent's algorithm and policy, and its settings by formulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_placement.envs.graph.features import DEFAULT_BLOCKS

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """What an agent uses in one formulation."""

    formulation: str
    reward: str
    """A name of `REWARDS`."""
    algorithm: Options
    """Arguments of the algorithm's class."""
    extractor: Options = field(default_factory=dict)
    """Arguments of the features extractor."""
    policy: Options = field(default_factory=dict)
    """Other arguments of the policy."""
    episodes: Mapping[str, int] = field(default_factory=dict)
    """Arguments of the algorithm that are counted in episodes of one step a group."""
    features: tuple[str, ...] = DEFAULT_BLOCKS
    """Names of `FEATURE_BLOCKS`."""
    horizon: int | None = 20
    """Steps of an episode; None: one a group."""
    copies: int = 1
    """Environments that a `PresetPlacer` steps together; they share the steps of an update."""

    def arguments(self, max_groups: int) -> dict[str, Any]:
        """Arguments of the algorithm's class, with those in episodes as steps.

        Args:
            max_groups: of the largest model, which are the steps of an episode.
        """
        steps = {name: count * max_groups for name, count in self.episodes.items()}
        return {**steps, **self.algorithm}


@dataclass(frozen=True)
class Preset:
    """An agent."""

    summary: str
    source: str
    """Where it is from."""
    differs: str
    """What is done in another way than there."""
    algorithm: str
    """A name of `ALGORITHMS`."""
    policy: str
    """A name of `POLICIES`."""
    formulations: Mapping[str, Settings]
    """By name; the first is the one that it is meant for."""


def by_formulation(*settings: Settings) -> Mapping[str, Settings]:
    """Settings by their formulations."""
    return {one.formulation: one for one in settings}
