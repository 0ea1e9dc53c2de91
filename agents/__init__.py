"""Agents that learn placements: feature extractor, presets, training and placers.

The names below are loaded when they are first used, so that the command answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_placement.agents.algorithms import (
        greedy_assignment,
        load_algorithm,
        make_algorithm,
    )
    from device_placement.agents.extractors import GraphFeaturesExtractor
    from device_placement.agents.placers import make_placer
    from device_placement.agents.policies import (
        FeaturesPolicy,
        GraphParsingPolicy,
        MaskableFeaturesPolicy,
        MaskableNodewisePolicy,
        NodewisePolicy,
    )
    from device_placement.agents.recording import RecordingEvaluator
    from device_placement.agents.reinforce import Reinforce
    from device_placement.agents.rnn import RnnPolicy
    from device_placement.agents.sb3_vec_env import SB3VecEnv
    from device_placement.agents.settings import going_on
    from device_placement.agents.training import TrainConfig, train

_HOMES = {
    "FeaturesPolicy": "policies",
    "GraphFeaturesExtractor": "extractors",
    "GraphParsingPolicy": "policies",
    "MaskableFeaturesPolicy": "policies",
    "MaskableNodewisePolicy": "policies",
    "NodewisePolicy": "policies",
    "RecordingEvaluator": "recording",
    "Reinforce": "reinforce",
    "RnnPolicy": "rnn",
    "SB3VecEnv": "sb3_vec_env",
    "TrainConfig": "training",
    "going_on": "settings",
    "greedy_assignment": "algorithms",
    "load_algorithm": "algorithms",
    "make_algorithm": "algorithms",
    "make_placer": "placers",
    "train": "training",
}

__all__ = [
    "FeaturesPolicy",
    "GraphFeaturesExtractor",
    "GraphParsingPolicy",
    "MaskableFeaturesPolicy",
    "MaskableNodewisePolicy",
    "NodewisePolicy",
    "RecordingEvaluator",
    "Reinforce",
    "RnnPolicy",
    "SB3VecEnv",
    "TrainConfig",
    "going_on",
    "greedy_assignment",
    "load_algorithm",
    "make_algorithm",
    "make_placer",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
