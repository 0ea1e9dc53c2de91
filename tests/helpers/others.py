"""Model files as other tools make them (tests/models_of_others), with shapes and inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[1] / "models_of_others"
FILES = {
    path.stem: path
    for path in sorted(FOLDER.iterdir())
    if path.suffix in (".xml", ".onnx", ".tflite")
}
QUANTISED = ("nncf_int8", "nncf_int4", "onnx_qdq", "tflite_int8")
STATES = {"lstm_state": 2, "kv_cache_decoder": 4}
SHAPES: dict[str, dict[str, list[int]]] = {
    "kv_cache_decoder": {
        "input_ids": [1, 4], "attention_mask": [1, 4], "position_ids": [1, 4], "beam_idx": [1],
    },
    "nncf_int4": {"hidden": [1, 128, 64]},
    "vit": {"pixel_values": [1, 3, 32, 32]},
    "whisper_encoder": {"input_features": [1, 16, 100]},
}  # fmt: skip
INPUTS: dict[str, dict[str, Any]] = {
    "if_loop": {"x": np.linspace(-1, 1, 256, dtype=np.float32).reshape(8, 32), "steps": 3},
    "kv_cache_decoder": {
        "input_ids": [[5, 9, 2, 77]], "attention_mask": [[1, 1, 1, 1]],
        "position_ids": [[0, 1, 2, 3]], "beam_idx": [0],
    },
    "tokenizer": {"text": ["", "a", "two words", "é", "x" * 40, "tab\t", "0", "last"] * 4},
}  # fmt: skip


def shapes_text(name: str) -> str:
    """The shapes of a model as the command line takes them."""
    shapes = SHAPES.get(name, {})
    return ";".join(f"{one}={','.join(map(str, shape))}" for one, shape in shapes.items())
