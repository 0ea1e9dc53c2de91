"""Make the models in this folder: small copies of what others convert, quantise and export.

Architectures and ops are those of real models; sizes are small, weights random but seeded.
Run it in an environment of its own, as the tests need none of these packages::

    pip install "openvino==2026.4.1" nncf onnx flatbuffers tflite transformers torch
    python tests/models_of_others/make.py [NAME ...]
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import flatbuffers
import nncf
import numpy as np
import onnx
import openvino as ov
import openvino.opset15 as ops
import tflite
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from openvino._offline_transformations import apply_make_stateful_transformation
from torch import nn
from transformers.cache_utils import DynamicLayer
from transformers.models.whisper.modeling_whisper import WhisperEncoder

FOLDER = Path(__file__).parent
PACKAGES = ("openvino", "nncf", "onnx", "tflite", "flatbuffers", "transformers", "torch")
SIZE = 128  # of images, in pixels
SEVEN_BITS = 63  # of larger weights, pairs of products overflow on CPUs without VNNI


class Classifier(nn.Module):
    """A small convolutional network with a residual connection."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.depthwise = nn.Conv2d(width, width, 3, 1, 1, groups=width)
        self.pointwise = nn.Conv2d(width, 2 * width, 1)
        self.block = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, 1, 1), nn.ReLU())
        self.head = nn.Linear(2 * width, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        node = torch.relu(self.pointwise(torch.relu(self.depthwise(self.stem(image)))))
        node = node + self.block(node)
        return self.head(node.mean((2, 3)))


def convert(module: nn.Module, example: Any, names: Sequence[str]) -> ov.Model:
    """Convert a torch module as its users do, with names for its inputs."""
    model = ov.convert_model(module.eval(), example_input=example)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
    return model


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


class TFLiteWriter:
    """Writer of a quantised .tflite file, one op after another."""

    def __init__(self) -> None:
        self.builder = flatbuffers.Builder(1 << 16)
        self.generator = np.random.default_rng(0)
        self.buffers = [b""]
        self.tensors: list[int] = []
        self.operators: list[int] = []
        self.codes: list[int] = []

    def offsets(self, start: Callable[..., Any], items: Sequence[int]) -> int:
        start(self.builder, len(items))
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def tensor(
        self, name: str, shape: Sequence[int], scales: Any, zero: int = 0, data: Any = None
    ) -> int:
        """Add a tensor, int8 unless its data are int32, and return its number.

        Without scales it is not quantised.
        """
        builder = self.builder
        quantisation = None if scales is None else self.quantisation(scales, zero)
        label = builder.CreateString(f"{name}_{len(self.tensors)}")
        sizes = builder.CreateNumpyVector(np.int32(shape))
        if data is not None:
            self.buffers.append(data.tobytes())
        is_int32 = data is not None and data.dtype == np.int32
        kind = tflite.TensorType.INT32 if is_int32 else tflite.TensorType.INT8
        tflite.TensorStart(builder)
        tflite.TensorAddShape(builder, sizes)
        tflite.TensorAddType(builder, kind)
        tflite.TensorAddBuffer(builder, len(self.buffers) - 1 if data is not None else 0)
        tflite.TensorAddName(builder, label)
        if quantisation is not None:
            tflite.TensorAddQuantization(builder, quantisation)
        self.tensors.append(tflite.TensorEnd(builder))
        return len(self.tensors) - 1

    def quantisation(self, scales: Any, zero: int) -> int:
        builder = self.builder
        scale = builder.CreateNumpyVector(np.atleast_1d(np.float32(scales)))
        zeros = builder.CreateNumpyVector(np.full(np.size(scales), zero, np.int64))
        tflite.QuantizationParametersStart(builder)
        tflite.QuantizationParametersAddScale(builder, scale)
        tflite.QuantizationParametersAddZeroPoint(builder, zeros)
        tflite.QuantizationParametersAddQuantizedDimension(builder, 0)
        return int(tflite.QuantizationParametersEnd(builder))

    def weights(self, shape: Sequence[int], channels: int, scale: float) -> list[int]:
        """Add weights with scales for each channel, and biases; return their numbers."""
        scales = self.generator.uniform(2e-3, 6e-3, channels)
        if shape[0] == 1:  # of a depthwise convolution: one scale for all
            scales = scales[:1]
        numbers = self.generator.integers(-SEVEN_BITS, SEVEN_BITS + 1, shape).astype(np.int8)
        bias = self.generator.integers(-500, 500, channels).astype(np.int32)
        kernel = self.tensor("weights", shape, scales, data=numbers)
        return [kernel, self.tensor("bias", [channels], scale * scales, data=bias)]

    def operator(
        self, code: int, inputs: Sequence[int], output: int, kind: int, options: int
    ) -> None:
        builder = self.builder
        ends = [builder.CreateNumpyVector(np.int32(one)) for one in (inputs, [output])]
        if code not in self.codes:
            self.codes.append(code)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, self.codes.index(code))
        tflite.OperatorAddInputs(builder, ends[0])
        tflite.OperatorAddOutputs(builder, ends[1])
        tflite.OperatorAddBuiltinOptionsType(builder, kind)
        tflite.OperatorAddBuiltinOptions(builder, options)
        self.operators.append(tflite.OperatorEnd(builder))

    def finish(self, source: int, result: int) -> bytes:
        builder = self.builder
        ends = [builder.CreateNumpyVector(np.int32([one])) for one in (source, result)]
        tensors = self.offsets(tflite.SubGraphStartTensorsVector, self.tensors)
        operators = self.offsets(tflite.SubGraphStartOperatorsVector, self.operators)
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddTensors(builder, tensors)
        tflite.SubGraphAddInputs(builder, ends[0])
        tflite.SubGraphAddOutputs(builder, ends[1])
        tflite.SubGraphAddOperators(builder, operators)
        graphs = self.offsets(tflite.ModelStartSubgraphsVector, [tflite.SubGraphEnd(builder)])
        codes, buffers = [], []
        for code in self.codes:
            tflite.OperatorCodeStart(builder)
            tflite.OperatorCodeAddDeprecatedBuiltinCode(builder, code)
            tflite.OperatorCodeAddBuiltinCode(builder, code)
            tflite.OperatorCodeAddVersion(builder, 3)
            codes.append(tflite.OperatorCodeEnd(builder))
        for data in self.buffers:
            content = builder.CreateByteVector(data)
            tflite.BufferStart(builder)
            tflite.BufferAddData(builder, content)
            buffers.append(tflite.BufferEnd(builder))
        several = self.offsets(tflite.ModelStartOperatorCodesVector, codes)
        stored = self.offsets(tflite.ModelStartBuffersVector, buffers)
        text = builder.CreateString("small classifier")
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, 3)
        tflite.ModelAddOperatorCodes(builder, several)
        tflite.ModelAddSubgraphs(builder, graphs)
        tflite.ModelAddDescription(builder, text)
        tflite.ModelAddBuffers(builder, stored)
        builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


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


class Branches(nn.Module):
    """A step that is repeated as often as an input says, and one of two layers after it."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.one, self.other = nn.Linear(64, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x)
        for _ in range(int(steps)):
            state = torch.tanh(self.cell(torch.cat([x, state], 1)))
        if bool(state.mean() > 0):
            state = torch.relu(self.one(state))
        else:
            state = torch.tanh(self.other(state))
        return state + x


def if_loop() -> ov.Model:
    """A scripted torch module with a loop of unknown length and a branch."""
    module = torch.jit.script(Branches().eval())
    model = ov.convert_model(module, example_input=(torch.rand(8, 32), torch.tensor(3)))
    for port, name in zip(model.inputs, ("x", "steps"), strict=True):
        port.get_tensor().set_names({name})
    model.reshape({"x": [8, 32], "steps": []})
    return model


class Detector(nn.Module):
    """A detector with one box of three classes for each cell, as YOLO's head gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.SiLU()
        )
        self.boxes, self.scores = nn.Conv2d(32, 4, 1), nn.Conv2d(32, 3, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        node = self.backbone(image)
        rows = torch.arange(node.shape[2], dtype=torch.float32)
        centre = torch.stack(torch.meshgrid(rows, rows, indexing="ij")).reshape(1, 2, -1)
        offset, size = self.boxes(node).flatten(2).split(2, 1)
        half = torch.exp(size)
        middle = centre + torch.sigmoid(offset)
        boxes = torch.cat([middle - half, middle + half], 1).transpose(1, 2)
        return boxes, torch.sigmoid(10 * self.scores(node).flatten(2))


def detector_nms() -> bytes:
    """An "end-to-end" export: non-maximum suppression inside, and an unknown number of boxes."""
    file, names = io.BytesIO(), ["all_boxes", "all_scores"]
    torch.onnx.export(
        Detector().eval(), (torch.rand(1, 3, SIZE, SIZE),), file, dynamo=False,
        input_names=["image"], output_names=names, opset_version=17,
    )  # fmt: skip
    model = onnx.load_from_string(file.getvalue())
    graph = model.graph
    constants = {
        "most": np.int64([20]), "overlap": np.float32([0.5]), "least": np.float32([0.6]),
        "zero_axis": np.int64([0]), "one": np.int64(1), "two": np.int64(2),
    }  # fmt: skip
    graph.initializer.extend(numpy_helper.from_array(one, name) for name, one in constants.items())
    graph.node.extend(
        helper.make_node(kind, inputs, [output], **attributes)
        for kind, inputs, output, attributes in (
            ("NonMaxSuppression", [*names, "most", "overlap", "least"], "chosen", {}),
            ("Gather", ["chosen", "two"], "place", {"axis": 1}),
            ("Gather", ["chosen", "one"], "labels", {"axis": 1}),
            ("Squeeze", ["all_boxes", "zero_axis"], "rows", {}),
            ("Gather", ["rows", "place"], "boxes", {"axis": 0}),
            ("GatherND", ["all_scores", "chosen"], "scores", {}),
        )
    )
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("boxes", TensorProto.FLOAT, ["found", 4]),
            ("scores", TensorProto.FLOAT, ["found"]),
            ("labels", TensorProto.INT64, ["found"]),
        )
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


class Hidden(nn.Module):
    """The last hidden state of a model of transformers."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(x)[0]


def whisper_encoder() -> ov.Model:
    """The encoder of Whisper: convolutions over time, then attention."""
    config = transformers.WhisperConfig(
        num_mel_bins=16, d_model=32, encoder_layers=2, encoder_attention_heads=2,
        encoder_ffn_dim=64, max_source_positions=50,
    )  # fmt: skip
    return convert(Hidden(WhisperEncoder(config)), torch.rand(1, 16, 100), ["input_features"])


def vit() -> ov.Model:
    """A vision transformer that classifies; the batch is dynamic."""
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=10,
    )  # fmt: skip
    module = Hidden(transformers.ViTForImageClassification(config))
    model = convert(module, torch.rand(1, 3, 32, 32), ["pixel_values"])
    model.reshape([-1, 3, 32, 32])
    return model


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


MODELS: dict[str, Callable[[], Any]] = {
    function.__name__: function
    for function in (
        nncf_int8, nncf_int4, onnx_qdq, tflite_int8, lstm_state, kv_cache_decoder, if_loop,
        detector_nms, whisper_encoder, vit, string_labels, tokenizer,
    )
}  # fmt: skip
SUFFIXES = {"detector_nms": ".onnx", "onnx_qdq": ".onnx", "tflite_int8": ".tflite"}


def make(name: str) -> None:
    """Make one model, and write it as its users do: ``save_model`` rounds weights to f16."""
    torch.manual_seed(0)
    model = MODELS[name]()
    path = FOLDER / f"{name}{SUFFIXES.get(name, '.xml')}"
    if isinstance(model, bytes):
        path.write_bytes(model)
    else:
        model.set_friendly_name(name)
        ov.save_model(model, path)
    sizes = [one.stat().st_size for one in (path, path.with_suffix(".bin")) if one.exists()]
    print(f"{name}: {sum(sizes) / 1e3:.0f} kB")


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    print(", ".join(f"{package} {installed(package)}" for package in PACKAGES))
    for one in sys.argv[1:] or MODELS:
        make(one)
