"""Two recurrent towers, such as those that embed a query and a document, and a joint score.

The steps of an LSTM follow one another and each is small, so more cores hardly make one faster;
two towers side by side take half the time of one after the other.
"""

from __future__ import annotations

import math

import numpy as np
import openvino as ov
from openvino import opset13 as op

from device_placement.envs.models.zoo.layers import (
    BIAS_STD,
    dense,
    half,
    integers,
    parameter,
    result,
)
from device_placement.envs.models.zoo.weights import Weights

STEPS = 96  # length of each sequence
WIDTH = 128  # of the inputs and of the hidden states
LAYERS = 4  # LSTMs of each tower
SCORES = 16
GAINS = {"input": 16.0, "recurrent": 2.0}  # weight variance times fan-in: states are of order 1


def two_towers() -> ov.Model:
    """Return two stacks of four LSTMs (Hochreiter and Schmidhuber, 1997), joined by dense layers.

    Inputs `query` and `document`: (1, 96, 128) f32, of order 1. Output `scores`: (1, 16) f32.
    """
    weights = Weights(seed=5)
    inputs = [parameter(name, [1, STEPS, WIDTH]) for name in ("query", "document")]
    ends = [tower(weights, one.get_friendly_name(), one) for one in inputs]
    both = op.concat(ends, axis=1, name="both")
    hidden = op.relu(dense(weights, "joint", both, WIDTH, gain=4.0), name="joint/relu")
    return ov.Model(
        [result("scores", dense(weights, "score", hidden, SCORES))], inputs, "two_towers"
    )


def tower(weights: Weights, name: str, x: ov.Node) -> ov.Node:
    """Return the embedding of a sequence, (1, WIDTH): the last hidden state of the last LSTM."""
    state = half(f"{name}/state", weights.normal((1, 1, WIDTH), std=1.0))
    for layer in range(LAYERS):
        made = lstm(weights, f"{name}/lstm{layer}", x, state)
        x = op.squeeze(made.output(0), integers(f"{name}/axis{layer}", [1]), name=f"{name}/{layer}")
    last = op.squeeze(made.output(1), integers(f"{name}/axis", [1]), name=f"{name}/last")
    return op.tanh(dense(weights, f"{name}/dense", last, WIDTH, gain=4.0), name=f"{name}/embedding")


def lstm(weights: Weights, name: str, x: ov.Node, state: ov.Node) -> ov.Node:
    """Return an LSTM over a sequence, (1, STEPS, WIDTH), that begins with a learned state."""
    kernels = [
        half(f"{name}/{kind}", weights.normal((1, 4 * WIDTH, WIDTH), std=math.sqrt(gain / WIDTH)))
        for kind, gain in GAINS.items()
    ]
    bias = half(f"{name}/bias", weights.normal((1, 4 * WIDTH), std=BIAS_STD))
    lengths = op.constant(np.full(1, STEPS, np.int32), name=f"{name}/lengths")
    return op.lstm_sequence(x, state, state, lengths, *kernels, bias, WIDTH, "forward", name=name)
