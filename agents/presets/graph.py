"""Our agents: one head for the groups of any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from device_placement.agents.presets.off_the_shelf import BANDIT, EPISODE, MOVES
from device_placement.agents.presets.settings import Options, Preset, Settings, by_formulation
from device_placement.envs.features import FEATURE_BLOCKS

# All blocks: the sinusoids tell groups apart that do the same at other places of the graph.
_FEATURES = tuple(FEATURE_BLOCKS)
_EXTRACTOR: Options = {"hidden": 64, "layers": 3}
_A2C: Options = {"normalize_advantage": True, "use_rms_prop": False}

_PPO_SETTINGS = by_formulation(
    Settings(
        "assign",
        reward="log_speedup",
        algorithm={
            **BANDIT,
            "learning_rate": 2e-3,
            "n_steps": 32,
            "batch_size": 32,
            "n_epochs": 8,
            "clip_range": 0.3,
        },
        extractor=_EXTRACTOR,
        features=_FEATURES,
    ),
    Settings(
        "construct",
        reward="log_speedup",
        algorithm={**EPISODE, "learning_rate": 1e-3, "n_epochs": 4, "clip_range": 0.2},
        extractor=_EXTRACTOR,
        episodes={"n_steps": 16, "batch_size": 16},
        features=_FEATURES,
    ),
    Settings(
        "refine",
        reward="log_improvement",
        algorithm={
            **MOVES,
            "learning_rate": 1e-3,
            "n_steps": 80,
            "batch_size": 80,
            "n_epochs": 8,
            "clip_range": 0.2,
        },
        extractor=_EXTRACTOR,
        features=_FEATURES,
    ),
)

_A2C_SETTINGS = by_formulation(
    replace(
        _PPO_SETTINGS["assign"],
        algorithm={**BANDIT, **_A2C, "learning_rate": 1e-3, "n_steps": 4},
    ),
    replace(
        _PPO_SETTINGS["construct"],
        algorithm={**EPISODE, **_A2C, "learning_rate": 1e-3},
        episodes={"n_steps": 8},
    ),
    replace(
        _PPO_SETTINGS["refine"],
        algorithm={**MOVES, **_A2C, "learning_rate": 1e-3, "n_steps": 40},
    ),
)

GRAPH_PRESETS: Mapping[str, Preset] = {
    "nodewise_ppo": Preset(
        "PPO with one head for the groups of any graph and any devices",
        "this project",
        "-",
        "ppo",
        "nodewise",
        _PPO_SETTINGS,
    ),
    "nodewise_a2c": Preset(
        "A2C with that head",
        "this project",
        "-",
        "a2c",
        "nodewise",
        _A2C_SETTINGS,
    ),
}
"""Name -> preset."""
