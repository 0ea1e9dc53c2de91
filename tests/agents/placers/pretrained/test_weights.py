"""Files of pretrained weights: what is kept, and what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from device_placement.agents.placers.pretrained.weights import (
    WeightsCard,
    inputs_digest,
    load_weights,
    save_weights,
    shipped_weights,
)
from device_placement.agents.policies.construct import ConstructNetwork
from device_placement.envs import DevicePlacementError

CARD = WeightsCard(16, 2, "", inputs_digest(), 8, 200, {"step": 3})


@pytest.fixture
def network() -> ConstructNetwork:
    return ConstructNetwork(16, 2)


def test_a_network_is_loaded_as_it_was_saved(network: ConstructNetwork, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_weights(network, path, CARD)
    loaded, card = load_weights(path)
    assert card == CARD
    assert not loaded.training
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


def test_those_in_the_package_are_small_and_say_how_they_were_made() -> None:
    _, card = load_weights()
    assert shipped_weights().stat().st_size <= 2_000_000
    wanted = {"step", "problems", "hours", "machine", "settings", "validation_gap_greedy"}
    assert wanted <= set(card.training)
    assert (card.without, card.max_devices) == ("", 8)


def write(path: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> None:
    content = json.dumps({**asdict(CARD), **changes})
    safetensors.torch.save_file(tensors, path, {"card": content})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "0123"}, r"another version: they read the inputs 0123.*pretrain"),
        ({"hidden": 32}, r"Can't read .*size mismatch.*pretrain"),
        ({"hidden": 10**9}, r"Can't read .*pretrain"),
        ({"layers": "many"}, r"Can't read .*pretrain"),
        ({"without": "eyes"}, r"Can't use .*Unknown hidden input 'eyes'"),
        ({"training": 3}, r"Can't read .*pretrain"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    changes: dict[str, Any], message: str, network: ConstructNetwork, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    write(path, network.state_dict(), **changes)
    with pytest.raises(DevicePlacementError, match=message):
        load_weights(path)


def test_missing_tensors_are_refused(network: ConstructNetwork, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = network.state_dict()
    del tensors["skip.weight"]
    write(path, tensors)
    with pytest.raises(DevicePlacementError, match=r"Missing key.*skip\.weight"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"", b"no weights", b"\xff" * 64])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(DevicePlacementError, match=r"as pretrained weights.*pretrain"):
        load_weights(path)


def test_a_missing_file_and_one_without_a_card_are_refused(
    network: ConstructNetwork, tmp_path: Path
) -> None:
    with pytest.raises(DevicePlacementError, match="Can't read"):
        load_weights(tmp_path / "none.safetensors")
    path = tmp_path / "a.safetensors"
    safetensors.torch.save_file(network.state_dict(), path)
    with pytest.raises(DevicePlacementError, match="Can't read"):
        load_weights(path)


def test_the_digest_names_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    from device_placement.agents.placers.pretrained import weights

    before = inputs_digest()
    monkeypatch.setattr(weights, "GRAPH_COSTS", (*weights.GRAPH_COSTS[1:], "another"))
    assert inputs_digest() != before
    assert replace(CARD, inputs=before).inputs != inputs_digest()
