from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from device_placement.envs import DeviceError, load_model, read_graph
from device_placement.envs.graph.flops import op_flops
from places import HELPERS
from problems import FLUSHING


def conv_model() -> ov.Model:
    """A 3x3 convolution of a 3x8x8 image to 4 channels, ReLU, and a sum with itself."""
    x = op.parameter([1, 3, 8, 8], np.float32, name="x")
    weights = op.constant(np.full((4, 3, 3, 3), 0.1, dtype=np.float32))
    y = op.relu(op.convolution(x, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    return ov.Model([op.result(op.add(y, y))], [x], "conv")


def test_a_literal_model_is_read_right() -> None:
    graph = read_graph(load_model(conv_model()), "CPU,CPU_B")
    kinds = dict(zip(graph.op_types, range(graph.num_ops), strict=True))
    assert sorted(kinds) == ["Add", "Constant", "Convolution", "Parameter", "Relu", "Result"]
    convolution, relu, add = kinds["Convolution"], kinds["Relu"], kinds["Add"]
    assert graph.flops[convolution] == 2 * 4 * 8 * 8 * 3 * 3 * 3
    assert graph.flops[relu] == 4 * 8 * 8
    assert graph.output_shapes[relu] == (1, 4, 8, 8)
    assert graph.bytes_out[relu] == 4 * 4 * 8 * 8
    assert graph.bytes_in[convolution] == 4 * 3 * 8 * 8  # the weights do not count
    assert graph.weight_bytes[kinds["Constant"]] == 4 * 4 * 3 * 3 * 3
    assert graph.weight_bytes.sum() == graph.weight_bytes[kinds["Constant"]]
    assert graph.is_constant.nonzero()[0].tolist() == [kinds["Constant"]]
    assert graph.num_edges == 6  # one per input: the sum reads the ReLU twice
    twice = (graph.edge_index == np.array([[relu], [add]])).all(axis=0)
    assert twice.sum() == 2
    assert graph.edge_bytes[twice].tolist() == [1024.0, 1024.0]
    assert graph.devices == ("CPU", "CPU_B")
    assert graph.supported.all()
    assert (graph.edge_index[0] < graph.edge_index[1]).all()


def test_fusion_sets_are_what_openvino_runs_as_one_node() -> None:
    graph = read_graph(load_model("resnet50"), "CPU")
    sets = [{graph.op_types[op] for op in members} for members in graph.fusion_sets]
    assert len(sets) >= 53  # every convolution takes at least its bias along
    assert all("Convolution" in kinds or "MatMul" in kinds for kinds in sets)
    members = [op for group in graph.fusion_sets for op in group]
    assert len(members) == len(set(members))
    assert sum(graph.flops) == pytest.approx(8.2e9, rel=0.02)  # 4.1 GMACs, torchvision's figure


def test_simulated_devices_need_not_be_here() -> None:
    model = load_model("diamond")
    graph = read_graph(model, "CPU,GPU.3,NPU", simulated=True)
    assert graph.supported.shape == (graph.num_ops, 3)
    assert graph.supported.all()
    with pytest.raises(DeviceError, match=r"GPU\.3"):
        read_graph(model, "CPU,GPU.3")


def test_networkx_view_keeps_every_edge() -> None:
    graph = read_graph(load_model(conv_model()), "CPU")
    view = graph.to_networkx()
    assert view.number_of_nodes() == graph.num_ops
    assert view.number_of_edges() == graph.num_edges
    assert sum(size for *_, size in view.edges(data="bytes")) == graph.edge_bytes.sum()


def test_two_readings_are_equal() -> None:
    one, other = (read_graph(load_model("diamond"), "CPU") for _ in range(2))
    assert one.model_hash == other.model_hash
    assert one.op_names == other.op_names
    np.testing.assert_array_equal(one.edge_index, other.edge_index)
    assert one.fusion_sets == other.fusion_sets


@pytest.mark.parametrize(
    ("node", "flops"),
    [
        (lambda: op.matmul(_tensor(2, 3, 5), _tensor(2, 5, 7), False, False), 2 * 2 * 3 * 5 * 7),
        (lambda: op.matmul(_tensor(5, 3), _tensor(5, 7), True, False), 2 * 3 * 5 * 7),
        (lambda: op.matmul(_tensor(5), _tensor(5), False, False), 2 * 5),
        (
            lambda: op.group_convolution(
                _tensor(1, 4, 6, 6), _tensor(4, 1, 1, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]
            ),
            2 * 4 * 36 * 9,
        ),
        (lambda: op.softmax(_tensor(2, 8), 1), 6 * 16),
        (lambda: op.reduce_mean(_tensor(2, 8), op.constant([1])), 16),
        (lambda: op.transpose(_tensor(2, 8), op.constant([1, 0])), 0),
        (lambda: op.add(_tensor(2, 8), _tensor(2, 8)), 16),
        (lambda: op.einsum([_tensor(2, 3), _tensor(3, 5)], "ij,jk->ik"), 2 * 2 * 3 * 5),
        (
            lambda: op.einsum([_tensor(4, 2, 3), _tensor(3, 5)], "...ij,jk->...ik"),
            2 * 4 * 2 * 3 * 5,
        ),
        (lambda: op.lstm_cell(*_states(2), _tensor(16, 3), _tensor(16, 4), _tensor(16), 4), 448),
        (lambda: op.gru_cell(*_states(1), _tensor(12, 3), _tensor(12, 4), _tensor(12), 4), 336),
        (lambda: op.dft(_tensor(3, 8, 2), op.constant(np.array([-1]))), 5 * 24 * 3),
        (lambda: op.rdft(_tensor(3, 8), op.constant(np.array([1]))), 5 * 24 * 3 / 2),
        (lambda: op.topk(_tensor(2, 8), op.constant(np.int64(3)), 1, "max", "value"), 16 * 2),
        (lambda: _repeated(5), 5 * 2 * 3 * 3),
    ],
)
def test_flops_of_single_ops(node: object, flops: float) -> None:
    assert op_flops(node()) == flops  # type: ignore[operator]


def _tensor(*shape: int) -> ov.Node:
    return op.parameter(list(shape), np.float32)


def _states(number: int) -> list[ov.Node]:
    """A batch of two inputs of three numbers, and states of four."""
    return [_tensor(2, 3), *(_tensor(2, 4) for _ in range(number))]


def _repeated(steps: int) -> ov.Node:
    """A matrix product for each of some rows."""
    row = _tensor(1, 3)
    weights = op.constant(np.ones((3, 3), np.float32))
    body = ov.Model([op.result(op.matmul(row, weights, False, False))], [row], "body")
    loop = op.tensor_iterator()
    loop.set_body(body)
    loop.set_sliced_input(row, _tensor(steps, 3).output(0), 0, 1, 1, -1, 0)
    out = loop.get_concatenated_slices(body.get_results()[0].output(0), 0, 1, 1, -1, 0)
    return out.get_node()


def test_weights_in_a_body_count() -> None:
    loop = _repeated(5)
    rows = loop.input_value(0).get_node()
    graph = read_graph(load_model(ov.Model([op.result(loop.output(0))], [rows], "loop")), "CPU")
    assert graph.weight_bytes.sum() == 4 * 9
    assert graph.flops.sum() == 5 * 2 * 9


@pytest.mark.parametrize("limit", ["AVX2", "AVX512_CORE", "ALL"])
def test_a_simulated_model_has_the_same_groups_on_every_processor(limit: str) -> None:
    """What a CPU fuses in its default precision depends on the processor, as in an attention."""
    code = """
        import device_placement.envs as envs
        from attention import attention
        graph = envs.read_graph(envs.load_model(attention()), "CPU,GPU", simulated=True)
        print(graph.fusion_sets)
    """
    found = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            env={**os.environ, "ONEDNN_MAX_CPU_ISA": one, "PYTHONPATH": str(HELPERS)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for one in (limit, "DEFAULT")
    }
    assert len(found) == 1


@pytest.mark.skipif(
    FLUSHING not in ov.Core().get_property("CPU", "SUPPORTED_PROPERTIES"),
    reason="this CPU plugin has no setting for denormal numbers",
)
def test_reading_a_graph_changes_no_arithmetic_of_the_caller() -> None:
    read_graph(load_model(conv_model()), f"CPU:{FLUSHING}=YES,CPU_B")
    assert float("5e-324") > 0
