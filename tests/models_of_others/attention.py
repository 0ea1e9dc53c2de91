"""Models of attention by transformers: Whisper's encoder and a vision transformer."""

from __future__ import annotations

import openvino as ov
import torch
import transformers
from common import convert
from torch import nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder


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
