"""Models made by others: a transformers BERT, as a torch module and as its ONNX export."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from device_placement.agents.placers.baselines import random_assignment
from device_placement.envs import (
    OpenVINOEvaluator,
    Placement,
    coarsen,
    load_model,
    make_core,
    read_graph,
)
from problems import QUICK, TWO_CPUS

TOKENS = 16


def tiny_bert(attention: str) -> Any:
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=TOKENS,
        attn_implementation=attention,
    )

    class Hidden(torch.nn.Module):
        """Tensors in, one tensor out: what tracers want."""

        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config, add_pooling_layer=False)

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self.bert(input_ids=input_ids, attention_mask=attention_mask)[0]

    return Hidden().eval()


def example() -> dict[str, Any]:
    import torch

    mask = torch.ones(1, TOKENS, dtype=torch.long)
    mask[0, TOKENS // 2 :] = 0
    return {"input_ids": torch.arange(TOKENS)[None] % 100, "attention_mask": mask}


def load(kind: str, attention: str, folder: Path) -> tuple[ov.Model, np.ndarray]:
    """The model by way of `kind`, and what torch computes."""
    import torch

    module, inputs = tiny_bert(attention), example()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracers of torch and transformers
        expected = module(**inputs).numpy()
        if kind == "torch":
            return load_model(module, example_input=inputs), expected
        path = folder / "bert.onnx"
        names = {"input_names": list(inputs), "output_names": ["hidden"]}
        axes = {name: {0: "batch", 1: "tokens"} for name in inputs}
        torch.onnx.export(
            module, tuple(inputs.values()), str(path), dynamo=False, dynamic_axes=axes, **names
        )
    return load_model(path, input_shapes={name: [1, TOKENS] for name in inputs}), expected


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_transformer_loads_splits_and_computes_what_torch_does(
    kind: str, attention: str, tmp_path: Path
) -> None:
    model, expected = load(kind, attention, tmp_path)
    core = make_core(TWO_CPUS)
    coarse = coarsen(read_graph(model, TWO_CPUS, core), "fusion")
    assert coarse.num_groups > 10
    evaluator = OpenVINOEvaluator(model, coarse, TWO_CPUS, core=core, **QUICK)
    generator = np.random.default_rng(0)
    inputs = {name: value.numpy() for name, value in example().items()}
    for _ in range(2):
        assignment = random_assignment(coarse, generator)
        assert evaluator.evaluate(assignment).error == ""
        placement = Placement.from_groups(coarse, evaluator.devices, assignment)
        compiled = core.compile_model(placement.apply(model), placement.hetero_name)
        error = np.linalg.norm(compiled(inputs)[0] - expected) / np.linalg.norm(expected)
        assert error < 0.03  # bf16 rounds to 3 digits, layer after layer
