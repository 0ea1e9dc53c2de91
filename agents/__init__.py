"""Agents that search for placements: policies, presets, training, placers and policy files.

Names are loaded on first use, so that the command starts quickly.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from device_placement.agents.commands.config import TrainConfig
    from device_placement.agents.commands.optimize import optimize
    from device_placement.agents.commands.train import train
    from device_placement.agents.placers import make_placer
    from device_placement.agents.placers.pretrained.weights import load_weights
    from device_placement.agents.policies.extractors import GraphFeaturesExtractor
    from device_placement.agents.policies.graph_data import to_pyg
    from device_placement.agents.policies.policies import (
        ConstructPolicy,
        FeaturesPolicy,
        GraphParsingPolicy,
        MaskableConstructPolicy,
        MaskableFeaturesPolicy,
        MaskableNodewisePolicy,
        NodewisePolicy,
    )
    from device_placement.agents.policies.rnn import RnnPolicy
    from device_placement.agents.runs.recording import RecordingEvaluator
    from device_placement.agents.runs.resume import going_on, resume_config
    from device_placement.agents.training.algorithms import (
        greedy_assignment,
        load_algorithm,
        make_algorithm,
    )
    from device_placement.agents.training.callbacks import SearchCallback
    from device_placement.agents.training.policy_file import (
        PolicyCard,
        load_policy,
        read_card,
        save_policy,
    )
    from device_placement.agents.training.preset_placer import named_search
    from device_placement.agents.training.reinforce import Reinforce
    from device_placement.agents.training.sb3_vec_env import SB3VecEnv

_HOMES = {
    "ConstructPolicy": "policies.policies",
    "FeaturesPolicy": "policies.policies",
    "GraphFeaturesExtractor": "policies.extractors",
    "GraphParsingPolicy": "policies.policies",
    "MaskableConstructPolicy": "policies.policies",
    "MaskableFeaturesPolicy": "policies.policies",
    "MaskableNodewisePolicy": "policies.policies",
    "NodewisePolicy": "policies.policies",
    "PolicyCard": "training.policy_file",
    "RecordingEvaluator": "runs.recording",
    "Reinforce": "training.reinforce",
    "RnnPolicy": "policies.rnn",
    "SB3VecEnv": "training.sb3_vec_env",
    "SearchCallback": "training.callbacks",
    "TrainConfig": "commands.config",
    "going_on": "runs.resume",
    "greedy_assignment": "training.algorithms",
    "load_algorithm": "training.algorithms",
    "load_policy": "training.policy_file",
    "load_weights": "placers.pretrained.weights",
    "make_algorithm": "training.algorithms",
    "make_placer": "placers",
    "named_search": "training.preset_placer",
    "optimize": "commands.optimize",
    "read_card": "training.policy_file",
    "resume_config": "runs.resume",
    "save_policy": "training.policy_file",
    "to_pyg": "policies.graph_data",
    "train": "commands.train",
}

__all__ = [
    "ConstructPolicy",
    "FeaturesPolicy",
    "GraphFeaturesExtractor",
    "GraphParsingPolicy",
    "MaskableConstructPolicy",
    "MaskableFeaturesPolicy",
    "MaskableNodewisePolicy",
    "NodewisePolicy",
    "PolicyCard",
    "RecordingEvaluator",
    "Reinforce",
    "RnnPolicy",
    "SB3VecEnv",
    "SearchCallback",
    "TrainConfig",
    "going_on",
    "greedy_assignment",
    "load_algorithm",
    "load_policy",
    "load_weights",
    "make_algorithm",
    "make_placer",
    "named_search",
    "optimize",
    "read_card",
    "resume_config",
    "save_policy",
    "to_pyg",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
