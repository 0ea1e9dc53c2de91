"""BERT-base-uncased (Devlin et al. 2019, arXiv:1810.04805): encoder and pooler."""

from __future__ import annotations

import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import (
    dense,
    half,
    integers,
    layer_norm,
    parameter,
    result,
    unsqueeze,
    width,
)
from device_placement.envs.models.zoo.weights import Weights

CONTEXT_GAIN = 0.25
"""Gain of attention's output layer: near-uniform attention would otherwise make tokens alike."""
SEQUENCE = 128
LAYERS = 12
HIDDEN = 768
HEADS = 12
INTERMEDIATE = 3072
VOCABULARY = 30_522
POSITIONS = 512
TOKEN_TYPES = 2
MASKED = -10_000.0
"""Added to a masked score, as in the original code; fits in fp16."""


def embedding(weights: Weights, name: str, ids: ov.Node, rows: int) -> ov.Node:
    """Return rows of an fp16 table, by index: (1, sequence) to (1, sequence, hidden)."""
    table = half(f"{name}/table", weights.normal((rows, HIDDEN), std=1.0))
    index = op.convert(ids, ov.Type.i32, name=f"{name}/ids")
    return op.gather(table, index, integers(f"{name}/axis", 0), name=name)


def position_ids(input_ids: ov.Node) -> ov.Node:
    """Return the first of 512 stored positions, one per token: (1, sequence)."""
    stored = integers("position_ids/stored", [list(range(POSITIONS))])
    shape = op.shape_of(input_ids, name="position_ids/shape")
    index, axis = integers("position_ids/index", [1]), integers("position_ids/axis", 0)
    stop = op.gather(shape, index, axis, name="position_ids/stop")
    start, step = integers("position_ids/start", [0]), integers("position_ids/step", [1])
    axes = integers("position_ids/axes", [1])
    return op.slice(stored, start, stop, step, axes, name="position_ids")


def embeddings(weights: Weights, input_ids: ov.Node, token_type_ids: ov.Node) -> ov.Node:
    """Return the normalised sum of word, token-type and position embeddings."""
    words = embedding(weights, "embeddings.word", input_ids, VOCABULARY)
    types = embedding(weights, "embeddings.token_type", token_type_ids, TOKEN_TYPES)
    places = embedding(weights, "embeddings.position", position_ids(input_ids), POSITIONS)
    total = op.add(words, types, name="embeddings.add_type")
    total = op.add(total, places, name="embeddings.add_position")
    return layer_norm(weights, "embeddings.norm", total)


def extended_mask(attention_mask: ov.Node) -> ov.Node:
    """Return (1 - mask) times a large negative number, of shape (1, 1, 1, sequence)."""
    out = unsqueeze("mask/unsqueeze1", attention_mask, integers("mask/axis1", 1))
    out = unsqueeze("mask/unsqueeze2", out, integers("mask/axis2", 2))
    out = op.convert(out, ov.Type.f32, name="mask/f32")
    out = op.subtract(half("mask/one", 1.0), out, name="mask/inverted")
    return op.multiply(out, half("mask/lowest", MASKED), name="mask")


def heads(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return a dense layer split into heads: (1, heads, sequence, hidden / heads)."""
    out = dense(weights, name, x, HIDDEN)
    shape = integers(f"{name}/shape", [0, 0, HEADS, HIDDEN // HEADS])
    out = op.reshape(out, shape, True, name=f"{name}/reshape")
    order = integers(f"{name}/order", [0, 2, 1, 3])
    return op.transpose(out, order, name=f"{name}/transpose")


def attention(weights: Weights, name: str, x: ov.Node, mask: ov.Node) -> ov.Node:
    """Return scaled dot-product attention of all heads, before its output layer."""
    query = heads(weights, f"{name}.query", x)
    key = heads(weights, f"{name}.key", x)
    value = heads(weights, f"{name}.value", x)
    scores = op.matmul(query, key, False, True, name=f"{name}.scores")
    scale = half(f"{name}.scale", width(query, -1) ** -0.5)
    scores = op.multiply(scores, scale, name=f"{name}.scaled")
    scores = op.add(scores, mask, name=f"{name}.masked")
    shares = op.softmax(scores, -1, name=f"{name}.softmax")
    out = op.matmul(shares, value, False, False, name=f"{name}.context")
    order = integers(f"{name}.context/order", [0, 2, 1, 3])
    out = op.transpose(out, order, name=f"{name}.context/transpose")
    shape = integers(f"{name}.context/shape", [0, 0, HIDDEN])
    return op.reshape(out, shape, True, name=f"{name}.context/reshape")


def encoder_layer(weights: Weights, name: str, x: ov.Node, mask: ov.Node) -> ov.Node:
    """Return attention and feed-forward, each with residual and layer norm: 78 ops, 83 edges."""
    out = attention(weights, f"{name}.attention", x, mask)
    out = dense(weights, f"{name}.attention.output", out, HIDDEN, gain=CONTEXT_GAIN)
    out = op.add(out, x, name=f"{name}.attention.add")
    attended = layer_norm(weights, f"{name}.attention.norm", out)
    out = dense(weights, f"{name}.intermediate", attended, INTERMEDIATE)
    out = op.gelu(out, "erf", name=f"{name}.gelu")
    out = dense(weights, f"{name}.output", out, HIDDEN, gain=2.0)
    out = op.add(out, attended, name=f"{name}.add")
    return layer_norm(weights, f"{name}.norm", out)


def pooler(weights: Weights, x: ov.Node) -> ov.Node:
    """Return a dense layer and tanh on the first token: (1, hidden)."""
    index, axis = integers("pooler/index", 0), integers("pooler/axis", 1)
    first = op.gather(x, index, axis, name="pooler/first")
    return op.tanh(dense(weights, "pooler.dense", first, HIDDEN), name="pooler")


def bert_base() -> ov.Model:
    """Return BERT-base-uncased on 128 tokens: 996 ops, 1055 edges, 109 M weights.

    Inputs `input_ids` (0 to 30521), `attention_mask` (1 = attend) and `token_type_ids` (0 or 1):
    (1, 128) i64. Outputs `last_hidden_state`: (1, 128, 768) f32, and `pooler_output`: (1, 768) f32.
    """
    weights = Weights(seed=12)
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = [parameter(name, [1, SEQUENCE], ov.Type.i64) for name in names]
    input_ids, attention_mask, token_type_ids = inputs
    out = embeddings(weights, input_ids, token_type_ids)
    mask = extended_mask(attention_mask)
    for layer in range(LAYERS):
        out = encoder_layer(weights, f"layer.{layer}", out, mask)
    outputs = [result("last_hidden_state", out), result("pooler_output", pooler(weights, out))]
    return ov.Model(outputs, inputs, "bert_base")
