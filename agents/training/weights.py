"""Weights and optimizer states in the zip files of stable-baselines3, read without running code."""

from __future__ import annotations

import io
import os
import warnings
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.envs.untrusted import MIB, read_member, reading

WEIGHTS, OPTIMIZER = "policy.pth", "policy.optimizer.pth"  # names of stable-baselines3
MAX_WEIGHT_BYTES = 1024 * MIB
POLICY = "the policy.zip of a run of `device-placement train`"
REPEAT = "remove it to repeat the training, without evaluating anything twice."


def read_weights(path: str | os.PathLike[str], torch_device: str = "cpu") -> Any:
    """Return the policy's weights by name.

    Raises:
        DevicePlacementError: when the file can't be read or holds something else.
    """
    with reading(path, "a policy", f"give {POLICY}."):
        weights = _read_tensors(path, WEIGHTS, torch_device)
        if not all(isinstance(one, torch.Tensor) for one in dict(weights).values()):
            raise TypeError("its weights are not tensors")
        return weights


def load_state(algorithm: BaseAlgorithm, path: str | os.PathLike[str]) -> None:
    """Load the weights and the optimizer's state of a checkpoint.

    Args:
        algorithm: made with the settings of the one that was saved.
        path: of the checkpoint.

    Raises:
        DevicePlacementError: when the file can't be read or does not fit.
    """
    policy, torch_device = algorithm.policy, str(algorithm.device)
    weights = read_weights(path, torch_device)
    with reading(path, "a checkpoint", REPEAT):
        policy.load_state_dict(weights)
        policy.optimizer.load_state_dict(_read_tensors(path, OPTIMIZER, torch_device))
        for weight, state in policy.optimizer.state.items():
            for name, value in state.items():
                if value.numel() > 1 and value.shape != weight.shape:
                    raise ValueError(f"the optimizer's {name} has the shape {tuple(value.shape)}")


def _read_tensors(path: str | os.PathLike[str], name: str, torch_device: str) -> Any:
    content = io.BytesIO(read_member(path, name, MAX_WEIGHT_BYTES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a format that torch then refuses
        return torch.load(content, map_location=torch_device, weights_only=True)
