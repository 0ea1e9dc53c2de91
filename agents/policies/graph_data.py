"""Observations as graphs of PyTorch Geometric, without padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

from device_placement.envs.graph_observation import ACTION_MASK, DEVICE_MASK, GRAPH, unpad

MASKS = (DEVICE_MASK, ACTION_MASK)


def to_pyg(observation: Mapping[str, Any]) -> Data:
    """Return an observation as a graph of PyTorch Geometric, without padding.

    `torch_geometric.data.Batch.from_data_list` joins several, also of different models.

    Args:
        observation: of `GraphObservation`, or of `DevicePlacementEnv`, which lacks ``action_mask``.

    Returns:
        ``x``, (num_groups, num_columns), ``edge_index``, (2, num_edges), and ``edge_attr``,
        (num_edges, num_edge_columns), with the columns that `GraphObservation` lists;
        ``device_mask`` and ``action_mask`` as bool, a row per group (in ``construct``
        ``action_mask`` has one row); ``devices``, and the other keys with a first dimension of 1,
        so that a batch has a row per graph.

    >>> from device_placement.envs import DevicePlacementEnv, GraphObservation
    >>> env = GraphObservation(DevicePlacementEnv("diamond", evaluator="simulator"))
    >>> data = to_pyg(env.reset(seed=0)[0])
    >>> data.num_nodes, data.num_edges, tuple(data.devices.shape)
    (4, 4, (1, 2, 4))
    """
    whole = unpad(observation)
    graph = whole.pop(GRAPH)
    masks = {key: _tensor(whole.pop(key)).bool() for key in MASKS if key in whole}
    return Data(
        x=_tensor(graph.nodes),
        edge_index=_tensor(graph.edge_links.T).long(),
        edge_attr=_tensor(graph.edges),
        **masks,
        **{key: _tensor(array)[None] for key, array in whole.items()},
    )


def _tensor(array: Any) -> torch.Tensor:
    # A copy: observations of a vector environment are read-only and shared.
    return torch.from_numpy(np.array(array, order="C"))
