"""Vector environment: steps many simulated copies at once, and predicts all their placements."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float32, Float64, Int64
from device_placement.envs.cost_features import PartialFeatures
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import EvaluatorOptions
from device_placement.envs.formulations import check_actions, make_vector_formulation
from device_placement.envs.graph.features import DEFAULT_BLOCKS
from device_placement.envs.observation import (
    UNPLACED,
    Observation,
    observe_many,
    one_hot_placements,
    stack_static,
)
from device_placement.envs.parts import make_parts
from device_placement.envs.simulation.simulator import as_simulated
from device_placement.envs.vector_state import (
    Incumbents,
    Infos,
    Outcomes,
    describe,
    evaluate_placements,
    final_infos,
)

Step = tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]


class DevicePlacementVectorEnv(VectorEnv[Observation, Any, NDArray[Any]]):
    """Vector of simulated `DevicePlacementEnv`s, equal step for step to a `SyncVectorEnv` of them.

    Formulations are ``assign`` and ``construct``; spaces, rewards and episodes are those of
    `DevicePlacementEnv`, with one row per copy. Copy i is seeded with seed + i.

    ## Observations
    Arrays that are constant for a model (``node_features``, ``node_mask``, ``edge_index``,
    ``edge_features``, ``edge_mask``, ``device_mask``, ``device_features``, ``graph_id``, and with
    ``costs`` all but ``partial_schedule``) are read-only and shared between steps; copy one before
    you change it. The others are new in each step.

    ## Information
    The keys of `DevicePlacementEnv` as arrays over the copies, each with its mask under ``_``
    and the key; masks and constants are read-only. `SyncVectorEnv` differs only in form:

    | key | here | there |
    |---|---|---|
    | times | float64 | object, if the first copy has no time |
    | ``samples_s``, ``interval_s`` | (num_envs, 1), (num_envs, 2), NaN without a time | tuples |
    | ``placement``, ``best_placement`` | (num_envs, max_groups), padded with -1 | lists |

    ## Autoreset
    ``NextStep``, the default: the step after an episode's end ignores the action and resets.
    ``SameStep``: the step that ends an episode resets; infos have ``final_obs`` and
    ``final_info``. ``Disabled``: call ``reset`` with ``options={"reset_mask": ...}``.

    Args:
        num_envs: number of copies.
        model: what `load_model` takes, or a list of it; each copy draws one per episode.
        devices: what `parse_devices` takes; ``auto`` means all of the hardware or profile.
        formulation: ``assign`` or ``construct``.
        horizon: steps of an episode in ``assign``.
        reward: a name of `REWARDS`; by default that of the formulation.
        features: names of the feature blocks.
        evaluator: ``simulator``, a `SimulatedEvaluator`, or a list of them, one per model.
        costs: ``none``, or ``profile`` to show costs to agents.
        repair: ``none``, ``fix``, ``sample`` or ``nearest``.
        autoreset_mode: a `gymnasium.vector.AutoresetMode`, or its value.
        options: ``coarsening``, ``max_groups``, ``input_shapes``, ``hardware``, ``profile``,
            ``schedule`` and ``constraints``, as `DevicePlacementEnv` takes them.

    Raises:
        DevicePlacementError: or a subclass, when an argument is wrong.

    >>> import gymnasium as gym
    >>> name = "device_placement.envs:SimulatedDevicePlacement-v0"
    >>> envs = gym.make_vec(name, 64, "vector_entry_point", model="diamond")
    >>> observations, infos = envs.reset(seed=0)
    >>> observations, rewards, *_ = envs.step(envs.action_space.sample())
    >>> rewards.shape, infos["placement"].shape
    ((64,), (64, 4))
    """

    def __init__(
        self,
        num_envs: int = 1,
        model: Any = "resnet50",
        devices: Any = "auto",
        *,
        formulation: str = "assign",
        horizon: int = 20,
        reward: str | None = None,
        features: Sequence[str] = DEFAULT_BLOCKS,
        evaluator: str | Evaluator | Sequence[Evaluator] = "simulator",
        costs: str = "none",
        repair: str = "none",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        **options: Unpack[EvaluatorOptions],
    ) -> None:
        check_native(num_envs, formulation, evaluator, options)
        self._mode = parse_autoreset(autoreset_mode)
        self._parts = make_parts(
            model,
            devices,
            evaluator,
            formulation,
            horizon,
            reward,
            features,
            costs,
            repair,
            **options,
        )
        self.num_envs = num_envs
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self.evaluators = [as_simulated(one, _ADVICE) for one in self._parts.evaluators]
        self.layout = self._parts.layout
        self.single_observation_space = self._parts.observation_space
        self.single_action_space = self._parts.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._formulation = make_vector_formulation(
            formulation,
            [one.coarse for one in self._parts.evaluators],
            self._parts.layout,
            self._parts.formulation,
            horizon,
        )
        self._incumbents = Incumbents(self.evaluators, self.layout, num_envs)
        self._generators = [seeding.np_random()[0] for _ in range(num_envs)]
        self._static: Observation = {}  # empty until the first reset
        self._graph_ids = np.zeros(num_envs, dtype=np.int64)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._assignments = np.full((num_envs, self.layout.max_groups), UNPLACED, dtype=np.int64)
        self._time_s = np.zeros(num_envs)  # the time before, for the next reward
        self._ended = np.zeros(num_envs, dtype=np.bool_)  # waiting for a reset
        self._all = np.broadcast_to(True, num_envs)
        self._partial: PartialFeatures | None = None
        self._next_costs: Float32 | None = None  # (num_envs, num_devices, len(PARTIAL_SCHEDULE))
        if self.layout.partial:
            self._partial = PartialFeatures(self._parts.known, num_envs)
            self._next_costs = self._partial.begin(np.arange(num_envs), self._graph_ids)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, Infos]:
        """Begin episodes, and return observations and infos.

        The singles of a model are evaluated when it is first drawn.

        Args:
            seed: of the first copy, the others use the next integers; or one per copy.
            options: ``graph_id``, a model for all copies, or one per copy (None: drawn);
                ``reset_mask``, (num_envs,) bool, the copies to reset.

        Raises:
            DevicePlacementError: when an argument is wrong.
        """
        options = options or {}
        mask = check_mask(options.get("reset_mask", self._all), self.num_envs)
        if not (self._static or mask.all()):
            raise ResetNeeded(
                "Got a reset_mask in the first reset(), which is of all copies; leave it out."
            )
        if isinstance(seed, int | np.integer):
            seed = [int(seed) + row for row in range(self.num_envs)]
        seeds = one_each("seed", seed, self.num_envs)
        chosen = one_each("graph_id", options.get("graph_id"), self.num_envs)
        rows = np.flatnonzero(mask)
        for row in rows.tolist():
            if seeds[row] is not None:
                self._generators[row] = seeding.np_random(seeds[row])[0]
        self._begin(rows, chosen)
        return self._observe(), self._describe(Outcomes.none(self.num_envs), mask)

    def step(self, actions: Any) -> Step:
        """Apply the actions, evaluate all due placements at once, and return the usual five values.

        Raises:
            PlacementError: when an action is outside its space; then nothing changes. (A masked
                action is applied, and its placement is invalid, as in a single environment.)
            ResetNeeded: before the first reset, or in ``Disabled`` after an episode's end.
        """
        if not self._static:
            raise ResetNeeded("Call reset() before step().")
        acting, resets = ~self._ended, np.flatnonzero(self._ended)
        if self._mode is AutoresetMode.DISABLED and resets.size:
            raise ResetNeeded("An episode has ended; reset it with options={'reset_mask': ...}.")
        chosen = self._check(actions, acting)
        self._steps += acting
        state = self._graph_ids, self._steps
        self._assignments = self._formulation.act(self._assignments, chosen, *state)
        if self._partial is not None and self._next_costs is not None:
            rows = np.flatnonzero(acting)
            self._next_costs[rows] = self._partial.place(rows, chosen[rows])
        due = np.flatnonzero(acting & self._formulation.is_due(*state))
        outcomes = self._evaluate(due)
        rewards = self._reward(due, outcomes)
        terminated, truncated = (ends & acting for ends in self._formulation.ends(*state))
        self._ended = terminated | truncated
        final: Infos = {}
        if self._mode is AutoresetMode.SAME_STEP and self._ended.any():
            ended, resets = self._ended.copy(), np.flatnonzero(self._ended)
            final = final_infos(self._observe(), self._describe(outcomes, ended), ended)
            outcomes = outcomes.without(ended)
        if resets.size:
            self._begin(resets)
        infos = final | self._describe(outcomes, self._all)
        return self._observe(), rewards, terminated, truncated, infos

    def _check(self, actions: Any, acting: Bool) -> Int64:
        """Check actions; those of copies that begin an episode do not count."""
        shape = self.action_space.shape
        if not acting.all() and np.shape(actions) == shape:
            actions = np.array(actions)
            actions[~acting] = 0
        return check_actions(actions, shape, self.layout.num_devices)

    def action_masks(self) -> Bool:
        """Return the mask of the actions allowed next, (num_envs, num_actions)."""
        masks = self._formulation.masks(self._graph_ids, self._steps)
        if not any(one is not None and one.costs.constraints for one in self._parts.repairers):
            return masks
        result = np.empty_like(masks)
        for row, graph_id in enumerate(self._graph_ids.tolist()):
            placed = self._assignments[row, : self.evaluators[graph_id].coarse.num_groups]
            step = int(self._steps[row])
            result[row] = self._parts.mask_actions(graph_id, masks[row], placed, step)
        return result

    def _begin(self, rows: Int64, chosen: Sequence[Any] | None = None) -> None:
        """Begin an episode in some copies, with chosen or randomly drawn models."""
        graph_ids = self._graph_ids.copy()
        for row in rows.tolist():
            choice = chosen[row] if chosen is not None else None
            graph_ids[row] = self._parts.draw_graph(self._generators[row], choice)
        for graph_id in np.unique(graph_ids[rows]).tolist():
            self._incumbents.open(graph_id)
        if not self._static or (graph_ids != self._graph_ids).any():
            self._static = stack_static(self._parts.static, [*self._incumbents.features], graph_ids)
        self._graph_ids = graph_ids
        self._steps[rows] = 0
        self._ended[rows] = False
        self._assignments[rows] = UNPLACED
        self._time_s[rows] = self._incumbents.reference_s[graph_ids[rows]]
        if self._partial is not None and self._next_costs is not None:
            self._next_costs[rows] = self._partial.begin(rows, graph_ids[rows])

    def _evaluate(self, due: Int64) -> Outcomes:
        """Evaluate the placements of some copies, one model at a time, and return the outcomes."""
        outcomes, graph_ids = Outcomes.none(self.num_envs), self._graph_ids[due]
        for graph_id in np.unique(graph_ids).tolist():
            rows, evaluator = due[graph_ids == graph_id], self.evaluators[graph_id]
            moved = self._repair(graph_id, rows)
            placements = self._assignments[rows, : evaluator.coarse.num_groups]
            found = evaluate_placements(evaluator, placements)
            outcomes.put(rows, replace(found, repaired=moved))
        self._incumbents.note(graph_ids, due, outcomes.time_s[due], self._assignments[due])
        return outcomes

    def _repair(self, graph_id: int, rows: Int64) -> Int64:
        """Repair the placements of some copies of a model; return how many groups that moves."""
        moved = np.zeros(len(rows), dtype=np.int64)
        if self._parts.repair != "none":
            groups = slice(self.evaluators[graph_id].coarse.num_groups)
            for number, row in enumerate(rows.tolist()):
                self._assignments[row, groups], moved[number] = self._parts.repaired(
                    graph_id, self._assignments[row, groups], self._generators[row]
                )
        return moved

    def _reward(self, due: Int64, outcomes: Outcomes) -> Float64:
        """Return the rewards, (num_envs,): 0 for copies whose placement was not due."""
        rewards, graph_ids = np.zeros(self.num_envs), self._graph_ids[due]
        penalty_s, reference_s = self._incumbents.penalty_s[graph_ids], self._incumbents.reference_s
        time_s = np.where(outcomes.valid[due], outcomes.time_s[due], penalty_s)
        times = time_s, self._time_s[due], reference_s[graph_ids]
        rewards[due] = [*map(self._parts.reward, *(column.tolist() for column in times))]
        self._time_s[due] = time_s
        return rewards

    def _observe(self) -> Observation:
        real = self._static["node_mask"].astype(np.bool_)
        reference_s = self._incumbents.reference_s[self._graph_ids]
        return observe_many(
            self._static,
            one_hot_placements(self._assignments, real, self.layout.num_devices),
            self._formulation.cursors(self._graph_ids, self._steps),
            [*map(math.log, (self._time_s / reference_s).tolist())],
            self._steps,
            self._next_costs,
        )

    def _describe(self, outcomes: Outcomes, given: Bool) -> Infos:
        reference_s = self._incumbents.reference_s[self._graph_ids]
        best = self._incumbents.best(self._graph_ids)
        return describe(outcomes, reference_s, self._assignments, *best, given)


_ADVICE = "use gym.vector.SyncVectorEnv, or gym.make_vec(..., vectorization_mode='sync')."


def check_native(
    num_envs: int, formulation: str, evaluator: Any, options: Mapping[str, Any]
) -> None:
    """Check that the native vector env supports the arguments.

    Raises:
        DevicePlacementError: when it does not.
    """
    if num_envs < 1:
        raise DevicePlacementError(f"Got num_envs={num_envs}; there must be 1 copy or more.")
    refused = {
        "the formulation 'refine'": formulation == "refine",
        "the evaluator 'openvino'": isinstance(evaluator, str) and evaluator == "openvino",
        "a render_mode": "render_mode" in options,
    }
    for what, given in refused.items():
        if given:
            raise DevicePlacementError(
                f"Got {what}, which the native vector env does not support; {_ADVICE}"
            )


def parse_autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    """Return the autoreset mode with a name.

    >>> parse_autoreset("SameStep")
    <AutoresetMode.SAME_STEP: 'SameStep'>
    """
    modes = {one.value: one for one in AutoresetMode}
    return mode if isinstance(mode, AutoresetMode) else choose("autoreset mode", mode, modes)


def check_mask(mask: Any, num_envs: int) -> Bool:
    """Check the mask of the copies to reset, (num_envs,), and return a copy of it.

    Raises:
        DevicePlacementError: when it is not one bool per copy, with at least one True.
    """
    result = np.array(mask)
    if result.shape != (num_envs,) or result.dtype != np.bool_ or not result.any():
        raise DevicePlacementError(
            f"Got a reset_mask of shape {result.shape} and type {result.dtype}; give one bool "
            f"for each of the {num_envs} copies, at least one of them True."
        )
    return result


def one_each(name: str, values: Any, num_envs: int) -> list[Any]:
    """Return one value per copy; a single value is repeated.

    Raises:
        DevicePlacementError: when their number is not that of the copies.
    """
    if values is None or isinstance(values, int | np.integer):
        return [values] * num_envs
    if len(values) != num_envs:
        raise DevicePlacementError(
            f"Got {len(values)} values of {name} for {num_envs} copies; give one per copy."
        )
    return list(values)
