"""Models with states: an LSTM, and a decoder with its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import torch
import transformers
from common import convert
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import nn
from transformers.cache_utils import DynamicLayer


class Recurrent(nn.Module):
    """Two layers of an LSTM whose states come in and go out."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, num_layers=2, batch_first=True)
        self.head = nn.Linear(size, 8)

    def forward(self, x: Any, h: Any, c: Any) -> Any:
        out, (new_h, new_c) = self.lstm(x, (h, c))
        return self.head(out), new_h, new_c


def lstm_state() -> ov.Model:
    """A model that hears one piece after another, made stateful by MakeStateful."""
    state = torch.zeros(2, 1, 32)
    model = convert(Recurrent(), (torch.rand(1, 4, 32), state, state), ["x", "h", "c"])
    for port, name in zip(model.outputs, ("y", "new_h", "new_c"), strict=True):
        port.get_tensor().set_names({name})
    model.reshape({"x": [1, 64, 32], "h": [2, 1, 32], "c": [2, 1, 32]})
    apply_make_stateful_transformation(model, {"h": "new_h", "c": "new_c"})
    return model


class Decoder(nn.Module):
    """A language model of transformers with its cache as plain tensors."""

    LAYERS = 2

    def __init__(self) -> None:
        super().__init__()
        config = transformers.LlamaConfig(
            vocab_size=128, hidden_size=32, intermediate_size=64, num_hidden_layers=self.LAYERS,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        )  # fmt: skip
        self.model = transformers.LlamaForCausalLM(config)

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> Any:
        cache = transformers.DynamicCache()
        for keys, values in zip(past[::2], past[1::2], strict=True):
            layer = DynamicLayer()
            layer.lazy_initialization(keys, values)
            layer.keys, layer.values = keys, values
            cache.layers.append(layer)
        out = self.model(input_ids=input_ids, attention_mask=attention_mask,
                         position_ids=position_ids, past_key_values=cache)  # fmt: skip
        present = [one for layer in cache.layers for one in (layer.keys, layer.values)]
        return (out.logits, *present)


def kv_cache_decoder() -> ov.Model:
    """A Llama as optimum-intel exports it: dynamic shapes, a cache in states, beam_idx."""
    ids = torch.ones(2, 3, dtype=torch.long)
    past = [torch.rand(2, 2, 5, 8) for _ in range(2 * Decoder.LAYERS)]
    names = [
        f"past_key_values.{layer}.{kind}"
        for layer in range(Decoder.LAYERS)
        for kind in ("key", "value")
    ]
    mask = torch.ones(2, 8, dtype=torch.long)
    inputs = ["input_ids", "attention_mask", "position_ids"]
    model = convert(Decoder(), (ids, mask, ids.cumsum(1) + 4, *past), [*inputs, *names])
    shapes = {name: ov.PartialShape([-1, -1]) for name in inputs}
    model.reshape(shapes | {name: ov.PartialShape([-1, 2, -1, 8]) for name in names})
    present = [name.replace("past_key_values", "present") for name in names]
    for port, name in zip(model.outputs, ["logits", *present], strict=True):
        port.get_tensor().set_names({name})
    _reorder_cache(model, names)
    apply_make_stateful_transformation(model, dict(zip(names, present, strict=True)))
    _initialise_states(model)
    return model


def _reorder_cache(model: ov.Model, names: Sequence[str]) -> None:
    beam_idx = ops.parameter([-1], np.int32, name="beam_idx")
    beam_idx.output(0).get_tensor().add_names({"beam_idx"})
    model.add_parameters([beam_idx])
    for name in names:
        past = model.input(name)
        readers = past.get_target_inputs()
        gathered = ops.gather(past, beam_idx, ops.constant(np.int64(0)))
        for reader in readers:
            reader.replace_source_output(gathered.output(0))
    model.validate_nodes_and_infer_types()


def _initialise_states(model: ov.Model) -> None:
    batch = ops.gather(ops.shape_of(model.input("input_ids"), "i64"), np.int64([0]), np.int64(0))
    for op in model.get_ordered_ops():
        if op.get_type_name() == "ReadValue":
            sizes = [batch, *(ops.constant(np.int64([size])) for size in (2, 0, 8))]
            empty = ops.broadcast(ops.constant(np.float32(0)), ops.concat(sizes, 0))
            op.set_arguments([empty])
    model.validate_nodes_and_infer_types()
