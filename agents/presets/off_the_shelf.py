"""Presets of stable-baselines3 algorithms, with settings for budgets of hundreds of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from device_placement.agents.presets.preset import Options, Preset, Settings, by_formulation

# A proposal does not change the value of the next one, so gamma is 0 and the best baseline
# is a constant, which normalising the advantages removes: no critic is trained.
BANDIT: Options = {"gamma": 0.0, "gae_lambda": 1.0, "vf_coef": 0.0, "ent_coef": 0.0}

# Every step gets the reward at the episode's end; a critic would need more episodes than there
# are. Without the entropy the policy, whose weights all groups share, soon ends at a single.
EPISODE: Options = {"gamma": 1.0, "gae_lambda": 1.0, "vf_coef": 0.0, "ent_coef": 0.02}

# Gains are discounted, so that earlier ones are better; a move may pay off some moves later.
MOVES: Options = {"gamma": 0.9, "gae_lambda": 0.9, "vf_coef": 0.5, "ent_coef": 0.005}

_A2C: Options = {"normalize_advantage": True, "use_rms_prop": False}
_EXTRACTOR: Options = {"features_dim": 64, "hidden": 32, "layers": 2}
_LINEAR: Options = {"net_arch": []}

PPO_SETTINGS = by_formulation(
    Settings(
        "assign",
        reward="log_speedup",
        algorithm={
            **BANDIT,
            "learning_rate": 2e-3,
            "n_steps": 16,
            "batch_size": 16,
            "n_epochs": 4,
            "clip_range": 0.3,
        },
        extractor=_EXTRACTOR,
        policy=_LINEAR,
        copies=16,
    ),
    Settings(
        "construct",
        reward="log_speedup",
        algorithm={**EPISODE, "learning_rate": 3e-3, "n_epochs": 4, "clip_range": 0.2},
        extractor=_EXTRACTOR,
        policy={"net_arch": [64]},
        episodes={"n_steps": 16, "batch_size": 16},
        copies=16,
    ),
    Settings(
        "refine",
        reward="log_improvement",
        algorithm={
            **MOVES,
            "learning_rate": 2e-3,
            "n_steps": 80,
            "batch_size": 80,
            "n_epochs": 8,
            "clip_range": 0.2,
        },
        extractor=_EXTRACTOR,
        policy=_LINEAR,
        copies=4,
    ),
)

A2C_SETTINGS = by_formulation(
    replace(
        PPO_SETTINGS["assign"],
        algorithm={**BANDIT, **_A2C, "learning_rate": 2e-3, "n_steps": 8},
    ),
    replace(
        PPO_SETTINGS["construct"],
        algorithm={**EPISODE, **_A2C, "learning_rate": 3e-3},
        episodes={"n_steps": 8},
    ),
    replace(
        PPO_SETTINGS["refine"],
        algorithm={**MOVES, **_A2C, "learning_rate": 2e-3, "n_steps": 40},
    ),
)

_DIFFERS = (
    "A logarithmic reward; settings for hundreds of evaluations; no critic where none helps; "
    "placements are drawn at once."
)

OFF_THE_SHELF: Mapping[str, Preset] = {
    "ppo": Preset(
        "proximal policy optimisation with a GNN for its features",
        "Schulman et al. 2017, arXiv 1707.06347; stable-baselines3",
        _DIFFERS,
        "ppo",
        "features",
        PPO_SETTINGS,
    ),
    "a2c": Preset(
        "advantage actor-critic with a GNN for its features",
        "Mnih et al. 2016, arXiv 1602.01783; stable-baselines3",
        f"{_DIFFERS} Adam in place of RMSProp.",
        "a2c",
        "features",
        A2C_SETTINGS,
    ),
    "maskable_ppo": Preset(
        "PPO that never takes a masked action",
        "Huang and Ontañón 2020, arXiv 2006.14171; sb3-contrib",
        _DIFFERS,
        "maskable_ppo",
        "maskable_features",
        PPO_SETTINGS,
    ),
}
"""Name -> preset."""
