"""Quantised models: NNCF in 8 and 4 bits, ONNX with QDQ, TFLite in whole integers."""

from __future__ import annotations

from typing import Any

import nncf
import numpy as np
import onnx
import openvino as ov
import tflite
import torch
from common import SEVEN_BITS, SIZE, Classifier, convert
from onnx import TensorProto, helper, numpy_helper
from tflite_writer import TFLiteWriter
from torch import nn


def images(number: int, size: int) -> list[Any]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal((1, 3, size, size), dtype=np.float32) for _ in range(number)]


def nncf_int8() -> ov.Model:
    """Post-training quantisation: FakeQuantize, and weights of 7 bits in i8."""
    model = convert(Classifier(), torch.rand(1, 3, SIZE, SIZE), ["image"])
    model.reshape([1, 3, SIZE, SIZE])
    options = nncf.AdvancedQuantizationParameters(
        overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.ENABLE
    )
    data = nncf.Dataset(images(8, SIZE))
    return nncf.quantize(model, data, subset_size=8, advanced_parameters=options)


def nncf_int4() -> ov.Model:
    """Compressed weights in groups of 32 with scales, as in language models."""
    module = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(),
                           nn.Linear(256, 64), nn.LayerNorm(64))  # fmt: skip
    model = convert(module, torch.rand(1, 8, 64), ["hidden"])
    model.reshape([-1, -1, 64])
    mode = nncf.CompressWeightsMode.INT4_ASYM
    return nncf.compress_weights(model, mode=mode, group_size=32, all_layers=True)


def onnx_qdq() -> bytes:
    """QuantizeLinear and DequantizeLinear around ops, as ONNX Runtime's quantiser writes them."""
    generator = np.random.default_rng(0)
    constants: dict[str, Any] = {"zero": np.int8(0), "point": np.uint8(128)}
    nodes, node = [], "image"

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{kind}_{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def rounded(node: str, scale: float) -> str:
        constants[f"scale_{len(nodes)}"] = np.float32(scale)
        ends = [f"scale_{len(nodes)}", "point"]
        return add("DequantizeLinear", [add("QuantizeLinear", [node, *ends]), *ends])

    def weights(*shape: int) -> str:
        name = f"weights_{len(nodes)}"
        numbers = generator.integers(-SEVEN_BITS, SEVEN_BITS + 1, shape)
        constants[name] = numbers.astype(np.int8)
        constants[f"{name}_scale"] = generator.uniform(2e-3, 6e-3, shape[0]).astype(np.float32)
        constants[f"{name}_zero"] = np.zeros(shape[0], np.int8)
        return add("DequantizeLinear", [name, f"{name}_scale", f"{name}_zero"], axis=0)

    node = rounded(node, 0.03)
    for inputs, outputs, step in ((3, 16, 2), (16, 32, 2), (32, 32, 1)):
        kernel = weights(outputs, inputs, 3, 3)
        node = add("Conv", [node, kernel], pads=[1, 1, 1, 1], strides=[step, step])
        node = rounded(add("Relu", [node]), 0.04)
    node = rounded(add("GlobalAveragePool", [node]), 0.02)
    node = add("Flatten", [node])
    node = add("Gemm", [node, weights(10, 32)], transB=1)
    add("Softmax", [node], axis=1)
    nodes[-1].output[0] = "probabilities"
    graph = helper.make_graph(
        nodes,
        "onnx_qdq",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tflite_int8() -> bytes:
    """Full-integer quantisation: int8 in, int8 out, a convolution, a depthwise one, a product."""
    writer, codes, kinds = TFLiteWriter(), tflite.BuiltinOperator, tflite.BuiltinOptions
    builder, same, relu = writer.builder, tflite.Padding.SAME, tflite.ActivationFunctionType.RELU
    source = node = writer.tensor("image", [1, SIZE, SIZE, 3], 0.02, 3)
    scale = 0.02
    for depthwise, channels, step in ((False, 16, 2), (True, 16, 1), (False, 32, 2)):
        size = SIZE // 2 if channels == 16 else SIZE // 4
        if depthwise:
            weights = writer.weights([1, 3, 3, channels], channels, scale)
            tflite.DepthwiseConv2DOptionsStart(builder)
            tflite.DepthwiseConv2DOptionsAddPadding(builder, same)
            tflite.DepthwiseConv2DOptionsAddStrideW(builder, step)
            tflite.DepthwiseConv2DOptionsAddStrideH(builder, step)
            tflite.DepthwiseConv2DOptionsAddDepthMultiplier(builder, 1)
            tflite.DepthwiseConv2DOptionsAddFusedActivationFunction(builder, relu)
            options = tflite.DepthwiseConv2DOptionsEnd(builder)
        else:
            inputs = 3 if node == source else 16
            weights = writer.weights([channels, 3, 3, inputs], channels, scale)
            tflite.Conv2DOptionsStart(builder)
            tflite.Conv2DOptionsAddPadding(builder, same)
            tflite.Conv2DOptionsAddStrideW(builder, step)
            tflite.Conv2DOptionsAddStrideH(builder, step)
            tflite.Conv2DOptionsAddFusedActivationFunction(builder, relu)
            options = tflite.Conv2DOptionsEnd(builder)
        scale = 0.03
        output = writer.tensor("features", [1, size, size, channels], scale, -128)
        code = codes.DEPTHWISE_CONV_2D if depthwise else codes.CONV_2D
        kind = kinds.DepthwiseConv2DOptions if depthwise else kinds.Conv2DOptions
        writer.operator(code, [node, *weights], output, kind, options)
        node = output
    axes = np.int32([1, 2])
    means = writer.tensor("means", [1, 32], 0.02, -128)
    tflite.ReducerOptionsStart(builder)
    tflite.ReducerOptionsAddKeepDims(builder, False)
    options = tflite.ReducerOptionsEnd(builder)
    along = writer.tensor("axes", [2], None, data=axes)
    writer.operator(codes.MEAN, [node, along], means, kinds.ReducerOptions, options)
    scores = writer.tensor("scores", [1, 10], 0.05)
    weights = writer.weights([10, 32], 10, 0.02)
    tflite.FullyConnectedOptionsStart(builder)
    options = tflite.FullyConnectedOptionsEnd(builder)
    kind = kinds.FullyConnectedOptions
    writer.operator(codes.FULLY_CONNECTED, [means, *weights], scores, kind, options)
    result = writer.tensor("probabilities", [1, 10], 1 / 256, -128)
    tflite.SoftmaxOptionsStart(builder)
    tflite.SoftmaxOptionsAddBeta(builder, 1.0)
    options = tflite.SoftmaxOptionsEnd(builder)
    writer.operator(codes.SOFTMAX, [scores], result, kinds.SoftmaxOptions, options)
    return writer.finish(source, result)
