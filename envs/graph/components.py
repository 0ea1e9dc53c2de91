"""Connected components of a graph, and shortest paths in it, by SciPy."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from device_placement.envs.arrays import Float64, Int64


def components(num_nodes: int, edge_index: Int64, connection: Literal["weak", "strong"]) -> Int64:
    """Return each node's weakly or strongly connected component, (num_nodes,) labels."""
    from scipy.sparse.csgraph import connected_components  # importing takes longer than running

    cells = _matrix(num_nodes, edge_index)
    _, label = connected_components(cells, connection=connection)
    return label.astype(np.int64)


def shortest_path(num_nodes: int, edge_index: Int64, start: int, end: int) -> list[int]:
    """Return the nodes of a shortest path, whichever way its edges point; [] if there is none."""
    from scipy.sparse.csgraph import breadth_first_order

    cells = _matrix(num_nodes, edge_index)
    _, previous = breadth_first_order(cells, start, directed=False)
    path = [end]
    while path[-1] != start:
        if previous[path[-1]] < 0:
            return []
        path.append(int(previous[path[-1]]))
    return path


def _matrix(num_nodes: int, edge_index: Int64) -> Any:
    from scipy.sparse import csr_array

    weights: Float64 = np.ones(edge_index.shape[1])
    return csr_array((weights, edge_index), (num_nodes, num_nodes), dtype=np.float64)
