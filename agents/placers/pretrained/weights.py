"""Files of pretrained weights: safetensors with a card, and those in the package."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch

from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import replaced
from device_placement.envs.observation import (
    DEVICE_COSTS,
    EDGE_COSTS,
    GRAPH_COSTS,
    GROUP_COSTS,
    GROUP_DEVICE_COSTS,
    PARTIAL_SCHEDULE,
)
from device_placement.envs.untrusted import MIB, check_count, parse_json, reading

SUFFIX = ".safetensors"
SHIPPED = "construct" + SUFFIX
MAX_BYTES = 64 * MIB
MAX_HIDDEN, MAX_LAYERS = 1024, 64
ADVICE = "give a file that `device-placement pretrain` wrote."


@dataclass(frozen=True)
class WeightsCard:
    """Description of pretrained weights: how to build the network, and how they were made."""

    hidden: int
    layers: int
    without: str
    """What the network does not see: a name of `HIDDEN_INPUTS`."""
    inputs: str
    """Digest of the names of what the network reads; weights of other inputs do not fit."""
    max_devices: int
    """Most devices of the problems it was trained on."""
    max_groups: int
    """Most groups of these problems."""
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings, steps, hours, machine, versions and validation of the training."""


def inputs_digest() -> str:
    """Return the digest of the names of what a construct network reads."""
    tables = (GROUP_DEVICE_COSTS, GROUP_COSTS, EDGE_COSTS, DEVICE_COSTS, GRAPH_COSTS)
    content = json.dumps([*tables, PARTIAL_SCHEDULE])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def shipped_weights() -> Path:
    """Return the file of the weights in the package."""
    return Path(str(resources.files("device_placement.agents") / "weights" / SHIPPED))


def save_weights(
    network: ConstructNetwork, path: str | os.PathLike[str], card: WeightsCard
) -> None:
    """Save a network and its card, replacing the file in one step."""
    metadata = {"card": json.dumps(dataclasses.asdict(card))}
    with replaced(path) as draft:
        safetensors.torch.save_file(network.state_dict(), draft, metadata)


def load_weights(path: str | os.PathLike[str] = "") -> tuple[ConstructNetwork, WeightsCard]:
    """Load a pretrained network and its card.

    Only numbers are read, no code, so a file from elsewhere can do no harm.

    Args:
        path: of the file; the weights in the package by default.

    Raises:
        DevicePlacementError: when the file can't be read, or its weights are of another version
            of the package or of another shape.

    >>> network, card = load_weights()
    >>> network.hidden == card.hidden
    True
    """
    file = Path(path) if path else shipped_weights()
    with reading(file, "pretrained weights", ADVICE):
        if file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES // MIB} MiB")
        with safetensors.safe_open(file, framework="pt") as opened:
            content = parse_json((opened.metadata() or {})["card"])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        card = WeightsCard(
            hidden=check_count(content["hidden"], MAX_HIDDEN),
            layers=check_count(content["layers"], MAX_LAYERS),
            without=str(content["without"]),
            inputs=str(content["inputs"]),
            max_devices=check_count(content["max_devices"]),
            max_groups=check_count(content["max_groups"]),
            training=dict(content["training"]),
        )
    if card.inputs != inputs_digest():
        raise DevicePlacementError(
            f"The weights {str(file)!r} are of another version: they read the inputs "
            f"{card.inputs}, and this version has {inputs_digest()}. Train new ones with "
            "`device-placement pretrain`, or use those in the package."
        )
    with reading(file, "pretrained weights", ADVICE):
        network = ConstructNetwork(card.hidden, card.layers, card.without)
        network.load_state_dict(tensors)
    network.eval()
    return network, card
