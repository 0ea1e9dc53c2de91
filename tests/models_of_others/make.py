"""Make the models in this folder: small copies of what others convert, quantise and export.

Architectures and ops are those of real models; sizes are small, weights random but seeded.
Run it in an environment of its own, as the tests need none of these packages::

    pip install "openvino==2026.4.1" nncf onnx flatbuffers tflite transformers torch
    python tests/models_of_others/make.py [NAME ...]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import openvino as ov
import torch
from dynamic import detector_nms, if_loop
from quantised import nncf_int4, nncf_int8, onnx_qdq, tflite_int8
from stateful import kv_cache_decoder, lstm_state
from texts import string_labels, tokenizer

from attention import vit, whisper_encoder

FOLDER = Path(__file__).parent
PACKAGES = ("openvino", "nncf", "onnx", "tflite", "flatbuffers", "transformers", "torch")

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
