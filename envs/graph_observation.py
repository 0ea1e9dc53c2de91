"""Observations as graphs without padding: a wrapper with a `Graph` space, and NetworkX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.spaces import GraphInstance
from gymnasium.utils import RecordConstructorArgs

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.observation import (
    GROUP_COSTS,
    GROUP_DEVICE_COSTS,
    LIMIT,
    UNPLACED,
)

if TYPE_CHECKING:
    import networkx as nx

GRAPH, DEVICE_MASK, ACTION_MASK, DEVICES = "graph", "device_mask", "action_mask", "devices"
BESIDE = (
    *("last_time", "step", "graph_id"),
    *("graph_costs", "costs_known", "partial_schedule"),  # with costs
)
"""Keys that stay as they are: they have no row per group, edge or device pair to pad."""


class GraphObservation(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Wrapper that turns padded observations into graphs of the size that the model has.

    ## Observations
    A ``Dict`` of:

    | key | space | content |
    |---|---|---|
    | ``graph`` | ``Graph`` | a node per group, an edge per pair of groups with a tensor between |
    | ``device_mask`` | ``Sequence`` of rows | (num_groups, num_devices): 1 = it can run there |
    | ``action_mask`` | ``Sequence`` of rows | devices that the next action may choose: a row per |
    | | | group, or one row in ``construct`` |
    | ``devices`` | ``Box`` | (num_devices, 4): ``device_features``; with costs 8 columns more |
    | ``last_time``, ``step``, ``graph_id`` | as before | and with costs ``graph_costs``, |
    | | | ``costs_known`` and ``partial_schedule`` |

    Columns of a node are those of ``node_features``, ``placement`` and ``cursor``, and with costs
    ``group_costs`` and ``group_device_costs``, device by device. Columns of an edge are those of
    ``edge_features``, and with costs ``edge_costs``.

    ## Actions
    As before. In ``assign`` an action may also be as long as the model has groups.

    Args:
        env: a `DevicePlacementEnv`, or a wrapper around one that leaves its observations as they
            are.

    Raises:
        DevicePlacementError: when the observations are of another environment.

    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> observation, info = GraphObservation(env).reset(seed=0)
    >>> observation["graph"].nodes.shape[0], observation["graph"].edge_links.tolist()
    (4, [[0, 1], [0, 2], [1, 3], [2, 3]])
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)  # so that `env.spec` can make it again
        gym.ObservationWrapper.__init__(self, env)
        inner = env.observation_space
        if not (isinstance(inner, spaces.Dict) and {"node_mask", DEVICE_MASK} <= inner.keys()):
            raise DevicePlacementError(
                f"Got an environment with the observation space {inner}; GraphObservation wraps a "
                "DevicePlacementEnv, whose observations no other wrapper has changed."
            )
        self.observation_space = _graph_space(inner)
        self._num_devices = int(inner[DEVICE_MASK].shape[1])  # type: ignore[index]
        self._num_groups = 0  # of the current model

    def observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return a padded observation as a graph."""
        result = unpad(observation)
        self._num_groups = len(result[DEVICE_MASK])
        masks = self.get_wrapper_attr("action_masks")().reshape(-1, self._num_devices)
        result[ACTION_MASK] = masks[: self._num_groups].astype(np.int8)
        return result

    def step(self, action: Any) -> Any:
        """Step; an action of ``assign`` without padding is padded."""
        space = self.action_space
        if isinstance(space, spaces.MultiDiscrete) and np.shape(action) == (self._num_groups,):
            action = np.pad(action, (0, len(space.nvec) - self._num_groups))
        return super().step(action)


def unpad(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Return an observation of `DevicePlacementEnv` without its padding; see `GraphObservation`.

    An observation that has none already is returned as a copy. ``action_mask`` is added by the
    wrapper only, as no observation holds it.
    """
    if GRAPH in observation:
        return dict(observation)
    groups = int(np.sum(observation["node_mask"]))
    edges = int(np.sum(observation["edge_mask"]))
    num_devices = observation[DEVICE_MASK].shape[1]
    nodes = [observation["node_features"], observation["placement"]]
    nodes.append(observation["cursor"][:, None])
    edge_columns, devices = [observation["edge_features"]], [observation["device_features"]]
    if "group_costs" in observation:
        each = observation["group_device_costs"]
        nodes += [observation["group_costs"], each.reshape(len(nodes[0]), -1)]
        edge_columns.append(observation["edge_costs"])
        devices.append(observation["device_costs"])
    graph = GraphInstance(
        nodes=_columns(nodes, groups),
        edges=_columns(edge_columns, edges),
        edge_links=np.ascontiguousarray(observation["edge_index"][:, :edges].T),
    )
    return {
        GRAPH: graph,
        DEVICE_MASK: observation[DEVICE_MASK][:groups].copy(),
        DEVICES: _columns(devices, num_devices),
        **{key: observation[key] for key in BESIDE if key in observation},
    }


def to_networkx(observation: Mapping[str, Any]) -> nx.DiGraph[int]:
    """Return an observation as a NetworkX graph, without padding.

    Args:
        observation: of `GraphObservation` or of `DevicePlacementEnv`.

    Returns:
        A node per group with ``features``, (num_columns,), the number of its ``device``, or -1,
        and its ``device_mask``, (num_devices,). An edge has ``features``, too. The graph's
        attributes are the other keys of the observation.

    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> _ = env.reset(seed=0)
    >>> graph = to_networkx(env.step([0, 1, 1, 0])[0])
    >>> [device for _, device in graph.nodes(data="device")], graph.number_of_edges()
    ([0, 1, 1, 0], 4)
    """
    import networkx as nx

    whole = unpad(observation)
    graph, masks = whole.pop(GRAPH), whole.pop(DEVICE_MASK)
    chosen = _placed_devices(graph.nodes, len(whole[DEVICES]), "graph_costs" in whole)
    result: nx.DiGraph[int] = nx.DiGraph(**whole)
    for group, (row, device) in enumerate(zip(graph.nodes, chosen, strict=True)):
        result.add_node(group, features=row, device=device, device_mask=masks[group])
    for (producer, consumer), row in zip(graph.edge_links.tolist(), graph.edges, strict=True):
        result.add_edge(producer, consumer, features=row)
    return result


def _placed_devices(nodes: Any, num_devices: int, costs: bool) -> list[int]:
    """Return the device of each node, -1 where it has none, from its columns."""
    behind = 1  # the cursor
    if costs:
        behind += len(GROUP_COSTS) + num_devices * len(GROUP_DEVICE_COSTS)
    end = nodes.shape[1] - behind
    slots = nodes[:, end - num_devices - 1 : end].argmax(axis=1)
    found: list[int] = np.where(slots == num_devices, UNPLACED, slots).tolist()
    return found


def _graph_space(inner: spaces.Dict) -> spaces.Dict:
    """Return the space of graphs for a padded one."""
    num_devices = inner[DEVICE_MASK].shape[1]  # type: ignore[index]
    sample = unpad({key: np.ones(space.shape) for key, space in inner.items()})
    graph = sample[GRAPH]
    masks = spaces.Sequence(spaces.Box(0, 1, (num_devices,), np.int8), stack=True)
    return spaces.Dict(
        {
            GRAPH: spaces.Graph(_real(graph.nodes.shape[1:]), _real(graph.edges.shape[1:])),
            DEVICE_MASK: masks,
            ACTION_MASK: spaces.Sequence(masks.feature_space, stack=True),
            DEVICES: _real(sample[DEVICES].shape),
            **{key: inner[key] for key in BESIDE if key in inner.spaces},
        }
    )


def _real(shape: tuple[int, ...]) -> spaces.Box[Any]:
    return spaces.Box(-LIMIT, LIMIT, shape, np.float32)


def _columns(parts: list[Any], rows: int) -> Any:
    """Return the first rows of some arrays side by side, as float32."""
    return np.concatenate([one[:rows] for one in parts], axis=1).astype(np.float32)
