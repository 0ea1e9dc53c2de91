"""Presets of our policies with one head for the groups of any graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from device_placement.agents.presets.off_the_shelf import A2C_SETTINGS, PPO_SETTINGS
from device_placement.agents.presets.preset import Preset, Settings
from device_placement.envs.graph.features import FEATURE_BLOCKS

# More is learned from each batch, as all groups share the weights.
_PPO = {"n_steps": 32, "batch_size": 32, "n_epochs": 8, "learning_rate": 2e-3}


def _nodewise(settings: Settings, **changes: object) -> Settings:
    """Return the settings of an off-the-shelf agent for the nodewise policy.

    All features: the sinusoids distinguish similar groups at different places of the graph.
    """
    return replace(
        settings,
        algorithm={**settings.algorithm, "learning_rate": 1e-3, **changes},
        extractor={"hidden": 64, "layers": 3},
        policy={},
        features=tuple(FEATURE_BLOCKS),
    )


GRAPH_PRESETS: Mapping[str, Preset] = {
    "nodewise_ppo": Preset(
        "PPO with one head for the groups of any graph and any devices",
        "this project",
        "-",
        "ppo",
        "nodewise",
        {
            "assign": _nodewise(PPO_SETTINGS["assign"], **_PPO),
            "construct": _nodewise(PPO_SETTINGS["construct"]),
            "refine": _nodewise(PPO_SETTINGS["refine"]),
        },
    ),
    "construct_ppo": Preset(
        "PPO that sees costs and places group by group, from where the placer greedy is",
        "this project",
        "-",
        "ppo",
        "construct",
        {
            "construct": replace(
                PPO_SETTINGS["construct"],
                algorithm={
                    **PPO_SETTINGS["construct"].algorithm,
                    "learning_rate": 1e-3,
                    "ent_coef": 0.003,
                },
                extractor={"hidden": 64, "layers": 4},
                policy={},
                costs="profile",
            )
        },
    ),
    "nodewise_a2c": Preset(
        "A2C with that head",
        "this project",
        "-",
        "a2c",
        "nodewise",
        {
            "assign": _nodewise(A2C_SETTINGS["assign"]),
            "construct": _nodewise(A2C_SETTINGS["construct"]),
            "refine": _nodewise(A2C_SETTINGS["refine"]),
        },
    ),
}
"""Name -> preset."""
