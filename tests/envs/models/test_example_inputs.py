from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch

from device_placement.envs import ModelError, load_model

State = namedtuple("State", "h c")


class Pair(torch.nn.Module):
    def forward(self, x: Any, state: Any) -> Any:
        h, c = state
        return x + 2 * h - 3 * c


class Cache(torch.nn.Module):
    def forward(self, ids: Any, past: Any) -> Any:
        out = ids.float()
        for number, (key, value) in enumerate(past):
            out = out + (number + 1) * key.sum(-1) - value.mean(-1)
        return out


class Optional(torch.nn.Module):
    def forward(self, x: Any, mask: Any = None, y: Any = None) -> Any:
        total = x if mask is None else x - 2 * mask
        return total if y is None else total + 3 * y


class Batch(torch.nn.Module):
    def forward(self, batch: Any) -> Any:
        return batch["a"] - 2 * batch["b"]


class Several(torch.nn.Module):
    def forward(self, x: Any, parts: Any) -> Any:
        return x - 2 * parts["p"][0] + 3 * parts["p"][1] * parts["q"]["r"]


class KeywordOnly(torch.nn.Module):
    def forward(self, x: Any, *, scale: Any = None, power: int = 1) -> Any:
        return (x if scale is None else x * scale) ** power


def tensor(*shape: int) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.linspace(0.1, 1.0, count).reshape(shape) + count


PAST = ((tensor(1, 4, 5), tensor(1, 4, 6)), (tensor(1, 4, 7), tensor(1, 4, 8)))
IDS = torch.arange(4)[None]
EXAMPLES: dict[str, tuple[Any, Any]] = {
    "a tuple in a tuple": (Pair(), (tensor(2, 3), (tensor(3), tensor(2, 1)))),
    "a tuple in a dict": (Pair(), {"x": tensor(2, 3), "state": (tensor(3), tensor(2, 1))}),
    "lists": (Pair(), [tensor(2, 3), [tensor(3), tensor(2, 1)]]),
    "a named tuple": (Pair(), (tensor(2, 3), State(tensor(3), tensor(2, 1)))),
    "arrays": (Pair(), (np.ones((2, 3), np.float32), (np.ones(3, np.float32), tensor(2, 1)))),
    "pairs of a cache": (Cache(), (IDS, PAST)),
    "lists in a dict": (Cache(), {"past": [list(one) for one in PAST], "ids": IDS}),
    "None": (Optional(), (tensor(2, 3), None, tensor(3))),
    "None in a list": (Optional(), [tensor(2, 3), None, tensor(3)]),
    "None in a dict": (Optional(), {"y": tensor(3), "x": tensor(2, 3), "mask": None}),
    "a gap in a dict": (Optional(), {"y": tensor(3), "x": tensor(2, 3)}),
    "a dict in a tuple": (Batch(), ({"b": tensor(3), "a": tensor(2, 3)},)),
    "a dict in a dict": (Batch(), {"batch": {"b": tensor(3), "a": tensor(2, 3)}}),
    "all of it": (Several(), (tensor(2), {"q": {"r": tensor(1)}, "p": [tensor(3, 2), tensor(2)]})),
    "keywords": (KeywordOnly(), {"scale": tensor(3), "x": tensor(2, 3), "power": 2}),
}


def call(module: Any, example: Any) -> Any:
    """Return what torch computes; every array is a tensor there."""
    given = torch.utils._pytree.tree_map(
        lambda one: torch.tensor(one) if isinstance(one, np.ndarray) else one, example
    )
    return module(**given) if isinstance(given, dict) else module(*given)


@pytest.mark.parametrize("name", EXAMPLES)
def test_nested_examples_are_flattened_in_order(name: str) -> None:
    module, example = EXAMPLES[name]
    before = repr(example)
    model = load_model(module, example_input=example)
    assert repr(example) == before
    flat = torch.utils._pytree.tree_leaves(example)
    if isinstance(example, dict):  # in the order of forward()
        order = [
            one for one in ("ids", "x", "state", "past", "mask", "y", "scale") if one in example
        ]
        flat = torch.utils._pytree.tree_leaves([example[one] for one in order] or example)
    leaves = [np.asarray(leaf) for leaf in flat if hasattr(leaf, "shape")]
    assert [list(port.get_shape()) for port in model.inputs] == [list(one.shape) for one in leaves]
    compiled = ov.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = next(iter(compiled(leaves).values()))
    np.testing.assert_allclose(found, call(module, example), rtol=1e-4)


def test_inputs_are_named_by_their_place() -> None:
    model = load_model(Cache(), example_input=(IDS, PAST))
    names = ("ids", "past_0_0", "past_0_1", "past_1_0", "past_1_1")
    assert all(name in port.get_names() for name, port in zip(names, model.inputs, strict=True))
    model = load_model(Optional(), example_input=(tensor(2, 3), None, tensor(3)))
    assert all(name in port.get_names() for name, port in zip("xy", model.inputs, strict=True))
    assert not any("mask" in port.get_names() for port in model.inputs)


def test_a_module_that_can_not_be_traced_is_an_error_about_what_was_given() -> None:
    with pytest.raises(ModelError, match=r"can't convert the torch module Pair"):
        load_model(Pair(), example_input=(tensor(2, 3), (tensor(3), None)))
    with pytest.raises(ModelError, match=r"can't convert the torch module Pair"):
        load_model(Pair(), example_input=(tensor(2, 3), (tensor(3),)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_traced_module_takes_its_example_too() -> None:
    traced = torch.jit.trace(Optional(), (tensor(2, 3), tensor(3)))
    model = load_model(traced, example_input=(tensor(2, 3), tensor(3)))
    assert [list(port.get_shape()) for port in model.inputs] == [[2, 3], [3]]
