"""Layers of PyTorch Geometric, and what they leave behind."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest
import torch

from device_placement.agents.policies.gnn import CONVS, GENERATED, MessageLayer
from device_placement.envs import DevicePlacementError


@pytest.mark.parametrize("conv", CONVS)
def test_a_layer_leaves_no_file(conv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edges = torch.tensor([[0, 1], [1, 2]])
    before = MessageLayer(4, 2, conv)
    generated = [
        name
        for name in sys.modules
        if name.startswith("torch_geometric") and name.endswith(GENERATED)
    ]
    assert generated
    for name in generated:
        monkeypatch.delitem(sys.modules, name)  # as in a new process
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    kind = type(before.along)
    for method in (*GENERATED, "collect", "edge_collect"):
        if method in vars(kind):
            monkeypatch.delattr(kind, method)
    after = MessageLayer(4, 2, conv)
    again = [name for name in sys.modules if name in generated]
    assert again
    assert all(Path(str(sys.modules[name].__file__)).parent == tmp_path for name in again)
    assert list(tmp_path.rglob("*.*")) == []
    after.load_state_dict(before.state_dict())
    given = torch.rand(3, 4), edges, torch.rand(2, 2)
    torch.testing.assert_close(after(*given), before(*given))


def test_unknown_layers_are_refused() -> None:
    with pytest.raises(DevicePlacementError, match=r"Unknown graph convolution 'gim'.*gin"):
        MessageLayer(4, 2, "gim")
