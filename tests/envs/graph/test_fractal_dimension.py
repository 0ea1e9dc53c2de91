import networkx as nx
import numpy as np
import pytest
from hypothesis import given

from device_placement.envs.graph import features as fractal
from device_placement.envs.graph.computation_graph import ComputationGraph
from device_placement.envs.graph.features import fractal_dimension
from graphs import graphs


def edges_of(graph: nx.Graph) -> np.ndarray:
    numbered = nx.convert_node_labels_to_integers(graph)
    return np.array(numbered.edges, np.int32).reshape(-1, 2).T


@given(graphs())
def test_is_the_slope_of_ball_size_over_radius(graph: ComputationGraph):
    undirected = nx.Graph(graph.edge_index.T.tolist())
    undirected.add_nodes_from(range(graph.num_ops))
    found = fractal_dimension(graph.num_ops, graph.edge_index)
    for node, lengths in nx.all_pairs_shortest_path_length(undirected):
        radii = sorted(set(lengths.values()) - {0})
        balls = [sum(length <= radius for length in lengths.values()) for radius in radii]
        slope = np.polyfit(np.log(radii), np.log(balls), 1)[0] if len(radii) > 1 else 0
        assert found[node] == pytest.approx(slope, abs=1e-9)


def test_worked_by_hand():
    # from the end of a path of 3: N(1) = 2, N(2) = 3; from its middle there is one distance
    path = np.array([[0, 1], [1, 2]])
    slope = np.log(3 / 2) / np.log(2)
    np.testing.assert_allclose(fractal_dimension(3, path), [slope, 0, slope])


def test_no_edges_no_dimension():
    no_edges = np.zeros((2, 0), np.int32)
    assert fractal_dimension(0, no_edges).shape == (0,)
    assert fractal_dimension(3, no_edges).tolist() == [0, 0, 0]


def test_a_path_is_near_one():
    inner = fractal_dimension(1000, edges_of(nx.path_graph(1000)))[1:-1]
    assert inner.mean() == pytest.approx(1, abs=0.15)
    assert inner.min() > 0.8


def test_a_large_grid_is_near_two(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fractal, "LARGEST_BALL", 2000)  # so that few balls meet the border
    side = 100
    grid = fractal_dimension(side**2, edges_of(nx.grid_2d_graph(side, side)))
    assert np.median(grid) == pytest.approx(2, abs=0.3)


def test_balls_stop_at_the_largest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fractal, "LARGEST_BALL", 5)
    # from the end of a path: N = 2, 3, 4, 5 at radius 1 to 4; from the middle 3 and 5
    found = fractal_dimension(50, edges_of(nx.path_graph(50)))
    end = np.polyfit(np.log([1, 2, 3, 4]), np.log([2, 3, 4, 5]), 1)[0]
    middle = np.log(5 / 3) / np.log(2)
    np.testing.assert_allclose(found[[0, 25, 49]], [end, middle, end])


def test_direction_loops_and_repeats_do_not_matter():
    one = np.array([[0, 1, 1, 2], [1, 2, 3, 4]])
    other = np.array([[1, 2, 1, 4, 0, 3], [0, 1, 3, 2, 1, 3]])
    assert (fractal_dimension(5, one) == fractal_dimension(5, other)).all()
