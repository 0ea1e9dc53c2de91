"""Writer of quantised .tflite files, by flatbuffers alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
import numpy as np
import tflite
from common import SEVEN_BITS


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
