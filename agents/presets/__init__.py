"""Settings that suit budgets of hundreds of evaluations, by algorithm and formulation.

Rewards are logarithms of times and advantages are normalised, so that neither the unit nor
the size of a model changes how an agent learns. Data only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from device_placement.envs.errors import choose

Preset = Mapping[str, Any]


def preset(algorithm: str, formulation: str) -> Preset:
    """The settings of an algorithm for a formulation.

    Returns:
        ``reward``, the name of the reward to train with; ``algorithm``, arguments of the
        algorithm's class; ``policy``, its ``policy_kwargs``; ``extractor``, arguments of
        `GraphFeaturesExtractor`. In ``construct`` also ``episodes``, arguments of the class
        that are counted in episodes of one step a group.

    Raises:
        DevicePlacementError: on an unknown algorithm or formulation.

    >>> preset("ppo", "assign")["reward"]
    'log_speedup'
    """
    return choose("formulation", formulation, choose("algorithm", algorithm, PRESETS))


_NETWORK: Preset = {
    "policy": {"net_arch": []},
    "extractor": {"features_dim": 64, "hidden": 32, "layers": 2},
}

# A proposal does not change what the next one is worth, so gamma is 0 and the best baseline
# is a constant, which the normalisation of the advantages takes away: no critic is trained.
_BANDIT = {"gamma": 0.0, "gae_lambda": 1.0, "vf_coef": 0.0, "ent_coef": 0.0}

# Every step of an episode gets its end's reward; a critic would need more episodes than there are.
# Without the entropy the policy, whose weights all groups share, soon ends at a single.
_EPISODE = {"gamma": 1.0, "gae_lambda": 1.0, "vf_coef": 0.0, "ent_coef": 0.02}

# Gains are discounted, so that the sooner is the better; a move may pay off some moves later.
_MOVES = {"gamma": 0.9, "gae_lambda": 0.9, "vf_coef": 0.5, "ent_coef": 0.005}

_A2C = {"normalize_advantage": True, "use_rms_prop": False}

_PPO_PRESETS: Mapping[str, Preset] = {
    "assign": {
        **_NETWORK,
        "reward": "log_speedup",
        "algorithm": {
            **_BANDIT,
            "learning_rate": 2e-3,
            "n_steps": 16,
            "batch_size": 16,
            "n_epochs": 4,
            "clip_range": 0.3,
        },
    },
    "construct": {
        **_NETWORK,
        "policy": {"net_arch": [64]},
        "reward": "log_speedup",
        "episodes": {"n_steps": 16, "batch_size": 16},
        "algorithm": {
            **_EPISODE,
            "learning_rate": 3e-3,
            "n_epochs": 4,
            "clip_range": 0.2,
        },
    },
    "refine": {
        **_NETWORK,
        "reward": "log_improvement",
        "algorithm": {
            **_MOVES,
            "learning_rate": 2e-3,
            "n_steps": 80,
            "batch_size": 80,
            "n_epochs": 8,
            "clip_range": 0.2,
        },
    },
}

_A2C_PRESETS: Mapping[str, Preset] = {
    "assign": {
        **_NETWORK,
        "reward": "log_speedup",
        "algorithm": {**_BANDIT, **_A2C, "learning_rate": 2e-3, "n_steps": 8},
    },
    "construct": {
        **_NETWORK,
        "policy": {"net_arch": [64]},
        "reward": "log_speedup",
        "episodes": {"n_steps": 8},
        "algorithm": {**_EPISODE, **_A2C, "learning_rate": 3e-3},
    },
    "refine": {
        **_NETWORK,
        "reward": "log_improvement",
        "algorithm": {**_MOVES, **_A2C, "learning_rate": 2e-3, "n_steps": 40},
    },
}

PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "ppo": _PPO_PRESETS,
    "a2c": _A2C_PRESETS,
    "maskable_ppo": _PPO_PRESETS,
}
"""Algorithm -> formulation -> settings."""
