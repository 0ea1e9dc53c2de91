"""Models of texts: a classifier that names its classes, and a tokenizer."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import torch
from common import SIZE, Classifier, convert


def string_labels() -> ov.Model:
    """A classifier that answers with the names of the three best classes."""
    model = convert(Classifier(8), torch.rand(1, 3, SIZE, SIZE), ["image"])
    model.reshape([1, 3, SIZE, SIZE])
    scores = ops.softmax(model.get_results()[0].input_value(0), 1)
    best = ops.topk(scores, ops.constant(np.int64(3)), 1, "max", "value")
    words = ["apple", "bear", "cat", "dog", "eagle", "fox", "goose", "hare", "ibis", "jay"]
    labels = ops.gather(ov.op.Constant(ov.Tensor(words)), best.output(1), np.int64(0))
    labels.output(0).get_tensor().set_names({"labels"})
    best.output(0).get_tensor().set_names({"scores"})
    results = [ops.result(labels), ops.result(best.output(0))]
    return ov.Model(results, model.get_parameters(), "string_labels")


def tokenizer() -> ov.Model:
    """Texts to ids of their bytes, padded to 32, and the mean of the bytes' embeddings."""
    text = ops.parameter([32], ov.Type.string, name="text")
    text.output(0).get_tensor().set_names({"text"})
    begins, ends, chars = ops.string_tensor_unpack(text).outputs()
    places = ops.unsqueeze(ops.range(np.int32(0), np.int32(32), np.int32(1), "i32"), np.int64(0))
    index = ops.add(ops.unsqueeze(begins, np.int64(1)), places)
    mask = ops.less(index, ops.unsqueeze(ends, np.int64(1)))
    inside = ops.select(mask, index, ops.constant(np.int32(0)))
    padded = ops.concat([chars, ops.constant(np.uint8([0]))], 0)
    bytes_ = ops.convert(ops.gather(padded, inside, np.int64(0)), "i32")
    ids = ops.select(mask, ops.add(bytes_, np.int32(3)), ops.constant(np.int32(0)))
    table = np.random.default_rng(0).standard_normal((259, 16)).astype(np.float32)
    vectors = ops.gather(ops.constant(table), ids, np.int64(0))
    attention = ops.convert(mask, "f32")
    total = ops.reduce_sum(ops.multiply(vectors, ops.unsqueeze(attention, np.int64(2))), [1])
    mean = ops.divide(total, ops.maximum(ops.reduce_sum(attention, [1], True), np.float32(1)))
    results = [ops.result(ids), ops.result(ops.convert(mask, "i64")), ops.result(ops.tanh(mean))]
    names = ("input_ids", "attention_mask", "embedding")
    for result, name in zip(results, names, strict=True):
        result.input_value(0).get_tensor().set_names({name})
    return ov.Model(results, [text], "tokenizer")
