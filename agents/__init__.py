"""Agents that learn placements: feature extractor, presets, training and placers.

The names below are loaded when they are first used, so that the command answers at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_placement.agents.commands.train import TrainConfig, train
    from device_placement.agents.placers import make_placer
    from device_placement.agents.policies.extractors import GraphFeaturesExtractor
    from device_placement.agents.policies.policies import (
        FeaturesPolicy,
        GraphParsingPolicy,
        MaskableFeaturesPolicy,
        MaskableNodewisePolicy,
        NodewisePolicy,
    )
    from device_placement.agents.policies.rnn import RnnPolicy
    from device_placement.agents.runs.config import going_on, resume_config
    from device_placement.agents.runs.recording import RecordingEvaluator
    from device_placement.agents.training.algorithms import (
        greedy_assignment,
        load_algorithm,
        make_algorithm,
    )
    from device_placement.agents.training.reinforce import Reinforce
    from device_placement.agents.training.sb3_vec_env import SB3VecEnv

_HOMES = {
    "FeaturesPolicy": "policies.policies",
    "GraphFeaturesExtractor": "policies.extractors",
    "GraphParsingPolicy": "policies.policies",
    "MaskableFeaturesPolicy": "policies.policies",
    "MaskableNodewisePolicy": "policies.policies",
    "NodewisePolicy": "policies.policies",
    "RecordingEvaluator": "runs.recording",
    "Reinforce": "training.reinforce",
    "RnnPolicy": "policies.rnn",
    "SB3VecEnv": "training.sb3_vec_env",
    "TrainConfig": "commands.train",
    "resume_config": "runs.config",
    "going_on": "runs.config",
    "greedy_assignment": "training.algorithms",
    "load_algorithm": "training.algorithms",
    "make_algorithm": "training.algorithms",
    "make_placer": "placers",
    "train": "commands.train",
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
    "resume_config",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
