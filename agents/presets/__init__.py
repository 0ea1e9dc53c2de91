"""Presets, agents by name: an algorithm, a policy and the settings of both; data only.

Each preset cites its source and says where it differs. Rewards are logarithms of times and
advantages are normalised unless the source differs, so that neither the unit nor the size of a
model changes how an agent learns.
"""

from __future__ import annotations

from device_placement.agents.presets.nodewise import GRAPH_PRESETS
from device_placement.agents.presets.off_the_shelf import OFF_THE_SHELF
from device_placement.agents.presets.preset import Preset, Settings
from device_placement.agents.presets.published import PUBLISHED
from device_placement.envs.errors import choose

PRESETS: dict[str, Preset] = {**OFF_THE_SHELF, **GRAPH_PRESETS, **PUBLISHED}
"""Name -> preset."""


def preset(name: str, formulation: str | None = None) -> Settings:
    """Return a preset's settings for a formulation, by default the one it is meant for.

    Raises:
        DevicePlacementError: on an unknown preset, or a formulation that it does not have.

    >>> preset("ppo", "assign").reward
    'log_speedup'
    >>> preset("placeto").formulation
    'refine'
    """
    chosen = choose("preset", name, PRESETS)
    if formulation is None:
        formulation = next(iter(chosen.formulations))
    return choose(f"formulation of {name}", formulation, chosen.formulations)
