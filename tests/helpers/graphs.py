"""Small computation graphs for tests: literal ones, and random ones for hypothesis."""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.tied_ops import TiedOps

settings.register_profile("no deadline", deadline=None)  # compiling and neighbours take time
settings.load_profile("no deadline")

Edge = tuple[int, int] | tuple[int, int, int]  # producer, consumer, port (0 if not given)


def make_graph(
    edges: Sequence[Edge],
    num_ops: int | None = None,
    *,
    types: Sequence[str] = (),
    constant: Sequence[int] = (),
    fusion_sets: Sequence[Sequence[int]] = (),
    supported: Sequence[Sequence[int]] | None = None,
    flops: Sequence[float] | None = None,
    tensor_bytes: Sequence[float] | None = None,
    shapes: Sequence[tuple[int, ...]] | None = None,
    num_devices: int = 2,
    tied: Sequence[TiedOps] = (),
) -> ComputationGraph:
    """A computation graph; ops are `Relu` (or `Constant`) of 4 bytes and 1 FLOP if not given.

    Args:
        edges: inputs of ops, producers with smaller numbers than consumers.
        num_ops: number of ops; as many as the edges need if not given.
        types: op types of the first ops.
        constant: the ops that are constant.
        fusion_sets: ops that the first device runs as one node.
        supported: for each op 0 or 1 for each device; all 1 if not given.
        flops: of each op.
        tensor_bytes: size of each op's tensors, which is also a constant's weight.
        shapes: output shape of each op.
        num_devices: number of devices if `supported` is not given.
        tied: ops that must share a group, as `tie` returns them.
    """
    full = [(edge[0], edge[1], edge[2] if len(edge) == 3 else 0) for edge in edges]
    if num_ops is None:
        num_ops = 1 + max((consumer for _, consumer, _ in full), default=0)
    columns = np.array(full, np.int32).reshape(-1, 3).T
    is_constant = np.isin(np.arange(num_ops), np.array(constant, int))
    kinds = ["Constant" if fixed else "Relu" for fixed in is_constant]
    kinds[: len(types)] = types
    size = np.full(num_ops, 4.0) if tensor_bytes is None else np.array(tensor_bytes, float)
    support = np.ones((num_ops, num_devices), bool)
    if supported is not None:
        support = np.array(supported, bool)
    edge_bytes = size[columns[0]]
    computed = ~is_constant[columns[0]]
    ports = {(int(op), int(port)) for op, _, port in full} | {(op, 0) for op in range(num_ops)}
    num_ports = np.bincount([op for op, _ in ports], minlength=num_ops)
    return ComputationGraph(
        name="test",
        model_hash="0",
        op_names=tuple(f"op{op}" for op in range(num_ops)),
        op_types=tuple(kinds),
        output_shapes=tuple(shapes) if shapes is not None else ((1,),) * num_ops,
        is_constant=is_constant,
        flops=np.ones(num_ops) if flops is None else np.array(flops, float),
        bytes_in=np.bincount(columns[1][computed], edge_bytes[computed], num_ops),
        bytes_out=size * num_ports,
        weight_bytes=np.where(np.array(kinds) == "Constant", size, 0.0),
        edge_index=columns[:2],
        edge_port=columns[2],
        edge_bytes=edge_bytes,
        devices=tuple(f"CPU.{device}" for device in range(support.shape[1])),
        supported=support,
        fusion_sets=tuple(tuple(members) for members in fusion_sets),
        tied=tuple(tied),
    )


@st.composite
def graphs(
    draw: st.DrawFn, max_ops: int = 16, any_support: bool = True, plain: bool = False
) -> ComputationGraph:
    """Random DAGs with constants, Parameters, Results, fusion sets and, if wanted, support.

    Some ops are made constant, and then all that feeds them; Parameters are ops without
    producers and Results ops without consumers. A plain graph has none of these.
    """
    num_ops = draw(st.integers(1, max_ops))
    pair = st.tuples(st.integers(0, num_ops - 1), st.integers(0, num_ops - 1))
    drawn = draw(st.lists(st.tuples(pair, st.integers(0, 1)), max_size=3 * num_ops))
    edges = [(min(p), max(p), port) for p, port in drawn if p[0] != p[1]]
    constant = draw(st.sets(st.integers(0, num_ops - 1), max_size=0 if plain else num_ops // 3))
    for producer, consumer, _ in sorted(edges, key=lambda edge: -edge[1]):
        if consumer in constant:
            constant.add(producer)
    ends = draw(st.lists(st.booleans(), min_size=num_ops, max_size=num_ops))
    fed, feeding = {edge[1] for edge in edges}, {edge[0] for edge in edges}
    types = ["Constant" if op in constant else "Relu" for op in range(num_ops)]
    for op in set(range(num_ops)) - constant:
        if not plain and ends[op] and (op not in fed or op not in feeding):
            types[op] = "Parameter" if op not in fed else "Result"
    sets = draw(st.lists(st.integers(-1, num_ops // 2), min_size=num_ops, max_size=num_ops))
    masks = st.sampled_from([(1, 1), (1, 1), (1, 1), (1, 0), (0, 1)])
    sizes = st.lists(st.sampled_from([1.0, 4.0, 1000.0]), min_size=num_ops, max_size=num_ops)
    return make_graph(
        edges,
        num_ops,
        types=types,
        constant=sorted(constant),
        fusion_sets=[[o for o in range(num_ops) if sets[o] == s] for s in set(sets) - {-1}],
        supported=(
            draw(st.lists(masks, min_size=num_ops, max_size=num_ops)) if any_support else None
        ),
        flops=draw(sizes),
        tensor_bytes=draw(sizes),
    )


def layered(num_ops: int, width: int, seed: int = 0, fan_in: int = 3) -> ComputationGraph:
    """Layers of `width` ops, each op fed by random ones of the layer before."""
    rng = np.random.default_rng(seed)
    consumer = np.repeat(np.arange(width, num_ops), fan_in)
    producer = (consumer // width - 1) * width + rng.integers(0, width, len(consumer))
    edges = np.stack([producer, consumer], axis=1).tolist()
    sets = [(op, op + 1, op + 2) for op in range(0, num_ops - 2, 3)]
    sizes = rng.integers(1, 1000, num_ops).astype(float)
    return make_graph(edges, num_ops, fusion_sets=sets, tensor_bytes=sizes.tolist())


def partition(coarse: CoarseGraph) -> list[list[int]]:
    members: list[list[int]] = [[] for _ in range(coarse.num_groups)]
    for op, group in enumerate(coarse.op_group.tolist()):
        members[group].append(op)
    return members


def quotient_of(graph: ComputationGraph, op_group: np.ndarray) -> nx.DiGraph:
    result: nx.DiGraph = nx.DiGraph()
    result.add_nodes_from(op_group.tolist())
    ends = op_group[graph.edge_index].T.tolist()
    result.add_edges_from((u, v) for u, v in ends if u != v)
    return result


def check(graph: ComputationGraph, coarse: CoarseGraph) -> None:
    """Every invariant of a coarse graph, with plain Python as the judge."""
    assert coarse.graph is graph
    assert coarse.op_group.shape == (graph.num_ops,)
    assert set(coarse.op_group.tolist()) == set(range(coarse.num_groups))
    assert (coarse.edge_index[0] < coarse.edge_index[1]).all()  # topological, so acyclic
    tensors: dict[tuple[int, int], dict[tuple[int, int], float]] = {}
    columns = (*graph.edge_index, graph.edge_port, graph.edge_bytes)
    for producer, consumer, port, size in zip(*(c.tolist() for c in columns), strict=True):
        pair = int(coarse.op_group[producer]), int(coarse.op_group[consumer])
        if pair[0] != pair[1]:
            tensors.setdefault(pair, {})[producer, port] = size
    assert [tuple(pair) for pair in coarse.edge_index.T.tolist()] == sorted(tensors)
    sizes = [sum(tensors[pair].values()) for pair in sorted(tensors)]
    np.testing.assert_allclose(coarse.edge_bytes, sizes)
    assert coarse.edge_tensors.tolist() == [len(tensors[pair]) for pair in sorted(tensors)]
    for group, ops in enumerate(partition(coarse)):
        assert (coarse.supported[group] == graph.supported[ops].all(axis=0)).all()
        assert len(ops) == 1 or coarse.supported[group].any()
    dtypes = {array.dtype for array in (coarse.op_group, coarse.edge_index, coarse.edge_tensors)}
    assert dtypes == {np.dtype(np.int32)}
