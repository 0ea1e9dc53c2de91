"""Random computation graphs: op types, shapes, FLOPs and bytes for the DAGs of `wiring`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.problems.draws import Draws
from device_placement.envs.problems.wiring import draw_wiring

MIN_GROUPS, MAX_GROUPS = 4, 10_000


@dataclass(frozen=True)
class OpKind:
    """Type of ops."""

    inputs: tuple[int, int]  # least and most
    intensity: tuple[float, float]  # FLOPs per byte that it reads or writes
    family: str  # types of a family are fast on the same devices, mostly
    has_weights: bool = False


MANY = 1_000_000
OP_KINDS: Mapping[str, OpKind] = {
    "Convolution": OpKind((0, 1), (20, 400), "convolution", True),
    "GroupConvolution": OpKind((0, 1), (2, 20), "convolution", True),
    "ConvolutionBackpropData": OpKind((0, 1), (20, 300), "convolution", True),
    "MatMul": OpKind((0, 2), (8, 200), "product", True),
    "LSTMSequence": OpKind((0, 1), (10, 100), "recurrent", True),
    "GRUSequence": OpKind((0, 1), (10, 100), "recurrent", True),
    "ScaledDotProductAttention": OpKind((3, 3), (10, 100), "product"),
    "Relu": OpKind((0, 1), (0.1, 0.25), "elementwise"),
    "Gelu": OpKind((0, 1), (1, 3), "elementwise"),
    "Swish": OpKind((0, 1), (0.5, 2), "elementwise"),
    "Tanh": OpKind((0, 1), (0.5, 2), "elementwise"),
    "Softmax": OpKind((0, 1), (0.5, 2), "reduction"),
    "MVN": OpKind((0, 1), (0.5, 2), "reduction"),
    "MaxPool": OpKind((0, 1), (0.5, 3), "reduction"),
    "ReduceMean": OpKind((0, 1), (0.2, 0.5), "reduction"),
    "Interpolate": OpKind((0, 1), (0.5, 2), "movement"),
    "Transpose": OpKind((0, 1), (0, 0), "movement"),
    "Pad": OpKind((0, 1), (0, 0), "movement"),
    "Add": OpKind((2, 2), (0.1, 0.2), "elementwise"),
    "Multiply": OpKind((2, 2), (0.1, 0.2), "elementwise"),
    "Maximum": OpKind((2, 2), (0.1, 0.2), "elementwise"),
    "Concat": OpKind((2, MANY), (0, 0), "movement"),
    "Einsum": OpKind((2, MANY), (4, 60), "product"),
}
"""Op type -> properties."""

TYPES_DRAWN = 5, 14  # least and most types of a graph
STEM = "Convolution", "MatMul", "LSTMSequence"  # one of them is the first op, so weights exist


def draw_graph(
    name: str, model_hash: str, family: str, num_groups: int, draws: Draws
) -> ComputationGraph:
    """Draw a graph whose ops all compute something; it supports no devices yet.

    Args:
        name: of the graph.
        model_hash: identifies it.
        family: a name of `wiring.FAMILIES`.
        num_groups: number of ops, each of which is to be a group.
        draws: all random choices.
    """
    wiring = draw_wiring(family, num_groups, draws)
    edge_index = np.array(sorted(set(wiring.edges)), dtype=np.int32).reshape(-1, 2).T
    kind = np.unique(wiring.kind, return_inverse=True)[1]
    num_kinds = int(kind.max()) + 1
    degree = np.zeros(num_kinds, dtype=np.int64)
    np.maximum.at(degree, kind, np.bincount(edge_index[1], minlength=num_groups))
    types = _draw_types(degree.tolist(), int(kind[0]), draws)
    shapes, element_bytes = _draw_shapes(num_kinds, draws)
    size = np.array([_elements(shape) for shape in shapes], dtype=np.float64) * element_bytes
    bytes_out = size[kind]
    bytes_in = np.bincount(edge_index[1], bytes_out[edge_index[0]], num_groups)
    kinds = [OP_KINDS[one] for one in types]
    low, high = np.array([one.intensity for one in kinds]).T
    names = sorted(set(types))
    share = np.square(draws.uniforms(len(names)))[[names.index(one) for one in types]]
    per_byte = (low + (high - low) * share) * np.sqrt(draws.tails(num_kinds))
    weights = draws.scales(2.0**10, 2.0**20, num_kinds) * draws.tails(num_kinds)
    weighted = np.array([one.has_weights for one in kinds]) & (degree < 2)
    return ComputationGraph(
        name=name,
        model_hash=hashlib.sha256(model_hash.encode()).hexdigest(),
        op_names=tuple(f"{types[one]}_{op}" for op, one in enumerate(kind.tolist())),
        op_types=tuple(types[one] for one in kind.tolist()),
        output_shapes=tuple(shapes[one] for one in kind.tolist()),
        is_constant=np.zeros(num_groups, dtype=np.bool_),
        flops=np.floor(per_byte[kind] * (bytes_in + bytes_out)),
        bytes_in=bytes_in.astype(np.float64),
        bytes_out=bytes_out,
        weight_bytes=np.where(weighted, np.floor(weights), 0.0)[kind],
        edge_index=edge_index,
        edge_port=np.zeros(edge_index.shape[1], dtype=np.int32),
        edge_bytes=bytes_out[edge_index[0]],
        devices=(),
        supported=np.zeros((num_groups, 0), dtype=np.bool_),
        fusion_sets=(),
    )


def _draw_types(degree: Sequence[int], first: int, draws: Draws) -> list[str]:
    """Draw the type of each kind of op; a graph has few types, and some are frequent.

    Args:
        degree: (num_kinds,) number of inputs.
        first: kind of the first op, which has weights.
        draws: all random choices.
    """
    stem = draws.one(STEM)
    drawn = draws.some(tuple(OP_KINDS), draws.whole(*TYPES_DRAWN))
    palette = {
        name: draws.uniform(0.1, 1.0) * (3.0 if OP_KINDS[name].has_weights else 1.0)
        for name in dict.fromkeys([stem, "Add", "Concat", *drawn])
    }
    fitting = {
        number: {
            name: weight
            for name, weight in palette.items()
            if OP_KINDS[name].inputs[0] <= number <= OP_KINDS[name].inputs[1]
        }
        for number in set(degree)
    }
    types = [draws.pick(fitting[number]) for number in degree]
    types[first] = stem
    return types


def _draw_shapes(number: int, draws: Draws) -> tuple[list[tuple[int, ...]], float]:
    """Draw output shapes, and the bytes of an element.

    Returns:
        (number,) shapes, all of one rank, and 2 or 4.
    """
    rank = draws.whole(2, 4)
    typical = draws.scale(2.0**8, 2.0**18)
    elements = typical * draws.spread(1.0, number) * draws.tails(number)
    channels = draws.scales(8.0, 1024.0, number)
    side = np.sqrt(np.maximum(elements / channels, 1.0))
    columns = {
        2: (elements,),
        3: (np.maximum(elements / channels, 1.0), channels),
        4: (channels, side, side),
    }[rank]
    whole = np.maximum(np.floor(np.stack(columns, axis=1)), 1.0).astype(np.int64)
    return [(1, *row) for row in whole.tolist()], draws.one((2.0, 4.0))


def _elements(shape: Sequence[int]) -> int:
    number = 1
    for size in shape:
        number *= size
    return number
