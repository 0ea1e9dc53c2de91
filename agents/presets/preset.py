"""Preset records: an agent's algorithm and policy, and its settings by formulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_placement.envs.graph.features import DEFAULT_BLOCKS

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of an agent in one formulation."""

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
    """Arguments of the algorithm that are counted in episodes of one step per group."""
    features: tuple[str, ...] = DEFAULT_BLOCKS
    """Names of `FEATURE_BLOCKS`."""
    horizon: int | None = 20
    """Steps of an episode; None: one per group."""
    costs: str = "none"
    """Costs that the agent sees: a name of `COSTS`."""
    copies: int = 1
    """Most copies of a simulated environment to step together; they share an update's steps."""

    def arguments(self, max_groups: int) -> dict[str, Any]:
        """Return the arguments of the algorithm's class, with those in episodes as steps.

        Args:
            max_groups: groups of the largest model, as many as an episode has steps.
        """
        steps = {name: count * max_groups for name, count in self.episodes.items()}
        return {**steps, **self.algorithm}


@dataclass(frozen=True)
class Preset:
    """Agent: an algorithm and a policy with their settings."""

    summary: str
    source: str
    """Source of the agent."""
    differs: str
    """Differences from the source."""
    algorithm: str
    """A name of `ALGORITHMS`."""
    policy: str
    """A name of `POLICIES`."""
    formulations: Mapping[str, Settings]
    """By name; the agent is meant for the first."""


def by_formulation(*settings: Settings) -> Mapping[str, Settings]:
    """Return the settings by their formulations."""
    return {one.formulation: one for one in settings}
