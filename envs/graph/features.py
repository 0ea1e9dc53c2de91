"""Features of groups: named blocks of numbers of order 1, including the fractal dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from device_placement.envs.arrays import Float32, Float64, Int32, Int64
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.jit import compiled_above

_TYPES = """
Abs Acos Add Asin Assign Atan AvgPool BatchNormInference BatchToSpace Broadcast Ceiling Clamp
Concat Constant Convert ConvertLike Convolution ConvolutionBackpropData Cos CumSum
DeformableConvolution DepthToSpace Divide Einsum Elu EmbeddingBagOffsetsSum Equal Erf Exp
FakeQuantize Floor FloorMod GRUCell GRUSequence Gather GatherElements GatherND Gelu Greater
GreaterEqual GridSample GroupConvolution GroupConvolutionBackpropData GroupNormalization
HSigmoid HSwish HardSigmoid If Interpolate LRN LSTMCell LSTMSequence Less LessEqual Log
LogSoftmax LogicalAnd LogicalNot LogicalOr Loop MVN MatMul MaxPool Maximum Minimum Mish Mod
Multiply Negative NonMaxSuppression NonZero NormalizeL2 NotEqual OneHot PRelu Pad Parameter
Power RNNCell RNNSequence ROIAlign ROIPooling RandomUniform Range ReadValue ReduceL1 ReduceL2
ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Result Roll Round
ScaledDotProductAttention ScatterElementsUpdate ScatterNDUpdate ScatterUpdate Select Selu
ShapeOf ShuffleChannels Sigmoid Sign Sin Slice SoftPlus SoftSign Softmax SpaceToBatch
SpaceToDepth Split Sqrt SquaredDifference Squeeze StridedSlice Subtract Swish Tan Tanh
TensorIterator Tile TopK Transpose Unique Unsqueeze VariadicSplit
"""
OP_TYPES: tuple[str, ...] = tuple(_TYPES.split())
"""The OpenVINO op types that have a column; all others count as `other`."""

MAX_RANK = 6
MAX_DEGREE = 8
MAX_DEVICES = 8
SINUSOID_WIDTH = 16
SINUSOID_BASE = 10_000
LIMIT = 10.0
"""Features are clipped to [-LIMIT, LIMIT]."""

_LOG_DIM = 4.0  # log1p of a dimension or rank: up to 8 or so
_LOG_COST = 10.0  # log1p of FLOPs or bytes: up to 28 or so


class FeatureBlock(NamedTuple):
    """Block of features: its number of columns, and the function that computes them."""

    width: int
    function: Callable[[CoarseGraph], Float64]  # -> (num_groups, width)
    columns: tuple[str, ...] = ()  # names of the columns; numbered if empty


def _op_type(coarse: CoarseGraph) -> Float64:
    """Return the mean one-hot of the ops that are not constant; of all ops if none is left."""
    number = {name: column for column, name in enumerate(OP_TYPES)}
    column = np.array([number.get(name, len(OP_TYPES)) for name in coarse.graph.op_types], int)
    counted = ~coarse.graph.is_constant
    counted |= (_sum(coarse, counted) == 0)[coarse.op_group]
    result: Float64 = np.zeros((coarse.num_groups, len(OP_TYPES) + 1))
    np.add.at(result, (coarse.op_group[counted], column[counted]), 1)
    result /= result.sum(axis=1, keepdims=True)
    return result


def _output_shape(coarse: CoarseGraph) -> Float64:
    """Return the log of the last op's first output shape, right-aligned; 0 is no dimension.

    Constants and Results count only in groups that have nothing else. Of more than `MAX_RANK`
    dimensions, the last ones are used.
    """
    result = np.zeros((coarse.num_groups, MAX_RANK))
    graph = coarse.graph
    minor = graph.is_constant | (np.array(graph.op_types, np.str_) == "Result")
    for op in [*np.flatnonzero(minor), *np.flatnonzero(~minor)]:  # the last one stays
        shape = graph.output_shapes[op][-MAX_RANK:]
        row = result[coarse.op_group[op]]
        row[:] = 0
        row[MAX_RANK - len(shape) :] = np.log1p(shape) / _LOG_DIM
    return result


def _in_degree(coarse: CoarseGraph) -> Float64:
    """Return the one-hot number of groups that feed this one; the last column is 8 or more."""
    return _one_hot_degree(coarse, 1)


def _out_degree(coarse: CoarseGraph) -> Float64:
    """Return the one-hot number of groups that this one feeds; the last column is 8 or more."""
    return _one_hot_degree(coarse, 0)


def _one_hot_degree(coarse: CoarseGraph, end: int) -> Float64:
    degree = np.bincount(coarse.edge_index[end], minlength=coarse.num_groups)
    return np.eye(MAX_DEGREE + 1)[np.minimum(degree, MAX_DEGREE)]


def _fractal_dimension(coarse: CoarseGraph) -> Float64:
    """Return `fractal_dimension` as a column: 1 on a path, 2 on a grid, up to 12 around a hub."""
    return fractal_dimension(coarse.num_groups, coarse.edge_index)[:, None]


def _position(coarse: CoarseGraph) -> Float64:
    """Return the log of the topological rank."""
    return np.log1p(np.arange(coarse.num_groups))[:, None] / _LOG_DIM


def _position_sinusoid(coarse: CoarseGraph) -> Float64:
    """Return sine and cosine of the topological rank (arXiv 1706.03762, section 3.5)."""
    period = SINUSOID_BASE ** (np.arange(0, SINUSOID_WIDTH, 2) / SINUSOID_WIDTH)
    angle = np.arange(coarse.num_groups)[:, None] / period
    waves = np.stack([np.sin(angle), np.cos(angle)], axis=2)
    return waves.reshape(coarse.num_groups, SINUSOID_WIDTH)


def _flops(coarse: CoarseGraph) -> Float64:
    """Return the log of the floating-point operations of one inference."""
    return _log_cost(_sum(coarse, coarse.graph.flops))


def _bytes_in(coarse: CoarseGraph) -> Float64:
    """Return the log of the bytes of tensors from other groups and of model inputs in the group."""
    entering = np.bincount(coarse.edge_index[1], coarse.edge_bytes, coarse.num_groups)
    inputs = np.array(coarse.graph.op_types, np.str_) == "Parameter"
    return _log_cost(entering + _sum(coarse, coarse.graph.bytes_out * inputs))


def _bytes_out(coarse: CoarseGraph) -> Float64:
    """Return the log of the bytes of tensors for other groups and of model outputs in the group.

    A tensor counts once, however many groups read it.
    """
    graph = coarse.graph
    group = coarse.op_group[graph.edge_index]
    cross = group[0] != group[1]
    tensors = np.stack([graph.edge_index[0], graph.edge_port])[:, cross]
    _, first = np.unique(tensors, axis=1, return_index=True)
    leaving = np.bincount(group[0, cross][first], graph.edge_bytes[cross][first], coarse.num_groups)
    outputs = np.array(graph.op_types, np.str_) == "Result"
    return _log_cost(leaving + _sum(coarse, graph.bytes_in * outputs))


def _weight_bytes(coarse: CoarseGraph) -> Float64:
    """Return the log of the bytes of the Constants."""
    return _log_cost(_sum(coarse, coarse.graph.weight_bytes))


def _supported_devices(coarse: CoarseGraph) -> Float64:
    """Return 1 where a device exists and runs every op; devices after the eighth are left out."""
    result = np.zeros((coarse.num_groups, MAX_DEVICES))
    shown = coarse.supported[:, :MAX_DEVICES]
    result[:, : shown.shape[1]] = shown
    return result


def _sum(coarse: CoarseGraph, values: NDArray[np.generic]) -> Float64:
    """Return the sum of the ops' values, (num_ops,), over each group."""
    return np.bincount(coarse.op_group, values, coarse.num_groups).astype(float)


def _log_cost(values: Float64) -> Float64:
    return np.log1p(values)[:, None] / _LOG_COST


_DEGREES = (*(str(degree) for degree in range(MAX_DEGREE)), f"{MAX_DEGREE}+")

FEATURE_BLOCKS: Mapping[str, FeatureBlock] = {
    "op_type": FeatureBlock(len(OP_TYPES) + 1, _op_type, (*OP_TYPES, "other")),
    "output_shape": FeatureBlock(MAX_RANK, _output_shape),
    "in_degree": FeatureBlock(MAX_DEGREE + 1, _in_degree, _DEGREES),
    "out_degree": FeatureBlock(MAX_DEGREE + 1, _out_degree, _DEGREES),
    "fractal_dimension": FeatureBlock(1, _fractal_dimension),
    "position": FeatureBlock(1, _position),
    "position_sinusoid": FeatureBlock(SINUSOID_WIDTH, _position_sinusoid),
    "flops": FeatureBlock(1, _flops),
    "bytes_in": FeatureBlock(1, _bytes_in),
    "bytes_out": FeatureBlock(1, _bytes_out),
    "weight_bytes": FeatureBlock(1, _weight_bytes),
    "supported_devices": FeatureBlock(MAX_DEVICES, _supported_devices),
}
"""All blocks by name. Widths and scales depend neither on the graph nor on the devices."""

DEFAULT_BLOCKS: tuple[str, ...] = tuple(
    name for name in FEATURE_BLOCKS if name != "position_sinusoid"
)
"""Every block, with the position as one number."""


def group_features(coarse: CoarseGraph, blocks: Sequence[str] = DEFAULT_BLOCKS) -> Float32:
    """Return the features of each group.

    Args:
        coarse: groups to describe.
        blocks: names of `FEATURE_BLOCKS`, in the order of the columns.

    Returns:
        (num_groups, num_features(blocks)) in [-10, 10]; dimensionless, of order 1.

    Raises:
        DevicePlacementError: if a block is unknown or repeated, or there is none.
    """
    columns = [block.function(coarse) for block in _chosen(blocks).values()]
    return np.concatenate(columns, axis=1).clip(-LIMIT, LIMIT).astype(np.float32)


def num_features(blocks: Sequence[str] = DEFAULT_BLOCKS) -> int:
    """Return the number of columns that `group_features` returns for these blocks.

    Raises:
        DevicePlacementError: if a block is unknown or repeated, or there is none.

    >>> num_features(["position", "in_degree"])
    10
    """
    return sum(block.width for block in _chosen(blocks).values())


def feature_names(blocks: Sequence[str] = DEFAULT_BLOCKS) -> tuple[str, ...]:
    """Return a label for each column, for plots.

    Raises:
        DevicePlacementError: if a block is unknown or repeated, or there is none.

    >>> feature_names(["flops", "output_shape"])[:3]
    ('flops', 'output_shape[0]', 'output_shape[1]')
    """
    names: list[str] = []
    for name, block in _chosen(blocks).items():
        columns = block.columns or tuple(str(column) for column in range(block.width))
        names += [name] if block.width == 1 else [f"{name}[{column}]" for column in columns]
    return tuple(names)


def _chosen(blocks: Sequence[str]) -> dict[str, FeatureBlock]:
    """Return the blocks with these names.

    Raises:
        DevicePlacementError: if a block is unknown or repeated, or there is none.
    """
    names = (blocks,) if isinstance(blocks, str) else tuple(blocks)
    chosen = {name: choose("feature block", name, FEATURE_BLOCKS) for name in names}
    if not names or len(chosen) < len(names):
        raise DevicePlacementError(
            f"Got the feature blocks {list(names)}; allowed: {', '.join(FEATURE_BLOCKS)}. "
            "Give at least one, each once."
        )
    return chosen


LARGEST_BALL = 10_000
"""Number of nodes at which a neighbourhood stops growing, to keep large graphs fast."""


def fractal_dimension(num_nodes: int, edge_index: NDArray[np.integer]) -> Float64:
    """Return the fractal dimension of each node of a graph, ignoring directions.

    D(v) is the slope of the least-squares line through log N(v, r) over log r, where r runs
    over the distances from v to other nodes and N(v, r) counts the nodes within r, v included
    (HSDAG, arXiv 2405.14185, section 2.2). It is 0 if there are fewer than two distances.
    N stops at `LARGEST_BALL`, and so does r, so D is exact in graphs of up to that many nodes.

    Finite graphs stay below the ideal, because balls end at the border and N(v, r) = 2r + 1 is
    not 2r: D is 0.81 to 0.98 (mean 0.89) on a path of 1,000 nodes. Its median is 1.54 on a
    grid of 100 x 100 and 1.84 on one of 223 x 223, where the balls are the same size.

    Args:
        num_nodes: number of nodes.
        edge_index: (2, num_edges) pairs of nodes; repeats and loops are ignored.

    Returns:
        (num_nodes,) dimensions, 0 or more.
    """
    ends = np.concatenate([edge_index, np.flip(edge_index, axis=0)], axis=1).astype(np.int64)
    ends = ends[:, np.argsort(ends[0], kind="stable")]
    start = np.searchsorted(ends[0], np.arange(num_nodes + 1))
    log = np.log(np.arange(1, min(num_nodes, LARGEST_BALL) + 1))
    return _slopes(start, ends[1].astype(np.int32), log)


@compiled_above(500)
def _slopes(start: Int64, neighbour: Int32, log: Float64) -> Float64:
    """Return (num_nodes,) slopes, by breadth-first search from every node.

    Args:
        start: (num_nodes + 1,) where each node's neighbours begin.
        neighbour: (2 * num_edges,) nodes.
        log: (most,) the logarithm of n at n - 1; a ball stops growing at `most` nodes.
    """
    num_nodes = len(start) - 1
    result = np.zeros(num_nodes)
    queue = np.empty(num_nodes, np.int32)  # the ball, nearest first; its last ring: begin to end
    # Last source whose ball contained the node, so that no array is cleared for each source.
    seen = np.full(num_nodes, -1, np.int32)
    for source in range(num_nodes):
        queue[0] = source
        seen[source] = source
        begin, end, radius = 0, 1, 0
        sum_x = sum_y = sum_xx = sum_xy = 0.0  # over radii: x log radius, y log size of the ball
        while end < len(log):
            ring = end
            for node in queue[begin:ring]:
                if end == len(log):
                    break
                for edge in range(start[node], start[node + 1]):
                    other = neighbour[edge]
                    if seen[other] != source and end < len(log):
                        seen[other] = source
                        queue[end] = other
                        end += 1
            if end == ring:
                break
            begin = ring
            radius += 1
            x, y = log[radius - 1], log[end - 1]
            sum_x += x
            sum_y += y
            sum_xx += x * x
            sum_xy += x * y
        if radius > 1:
            spread = radius * sum_xx - sum_x * sum_x
            result[source] = (radius * sum_xy - sum_x * sum_y) / spread
    return result
