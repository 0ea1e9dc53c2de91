"""Vector environment over many problems: each copy places another graph on another machine."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from device_placement.envs.arrays import Bool, Float32, Float64, Int64
from device_placement.envs.cost_features import KnownCosts, PartialFeatures, cost_arrays
from device_placement.envs.episode import Baseline, find_baseline
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.formulations import check_actions
from device_placement.envs.graph.features import DEFAULT_BLOCKS, group_features, num_features
from device_placement.envs.observation import (
    NUM_DEVICE_FEATURES,
    PARTIAL_SCHEDULE,
    UNPLACED,
    Layout,
    Observation,
    action_space,
    graph_arrays,
    observation_space,
    observe_many,
)
from device_placement.envs.rewards import DEFAULT_REWARDS, REWARDS
from device_placement.envs.simulation.simulator import SimulatedEvaluator
from device_placement.envs.vector_env import parse_autoreset
from device_placement.envs.vector_state import evaluate_placements

Infos = dict[str, Any]
Step = tuple[Observation, NDArray[Any], NDArray[Any], NDArray[Any], Infos]


class ProblemVectorEnv(VectorEnv[Observation, Any, NDArray[Any]]):
    """Vector of ``construct`` episodes on problems that differ in graph, machine and schedule.

    Every episode is of a new problem, which several copies share: they begin and end together, so
    that a policy can compare their times. Observations are those of `DevicePlacementVectorEnv` in
    ``construct`` with ``costs="profile"``, padded to the given sizes; ``device_mask`` is 0 for
    devices that a problem lacks. ``graph_id`` numbers the problems of the moment.

    ## Observations
    Arrays that are constant for a problem are read-only, shared between steps, and replaced when a
    problem is; copy one before you change it.

    ## Information
    Arrays over the copies, each with its mask under ``_`` and the key: ``time_s`` of the
    placements that this step completed (NaN if invalid), ``valid``, ``single_s`` of the fastest
    single, and ``problem``, the name.

    ## Autoreset
    ``NextStep``, the default: the step after an episode's end ignores the action and begins a new
    problem. ``Disabled``: copies whose episode has ended ignore actions until `reset`, which begins
    new problems in all copies. If the problems run out, `reset` or `step` raises `StopIteration`.

    Args:
        num_envs: number of copies.
        problems: simulators, in the order of the episodes; an endless generator, for instance.
        copies_per_problem: consecutive copies that share a problem; a divisor of num_envs.
        max_groups: most groups of a problem.
        max_devices: most devices of a problem.
        max_edges: most edges of a problem.
        reward: a name of `REWARDS`.
        features: names of the feature blocks.
        autoreset_mode: ``NextStep`` or ``Disabled``, or a `gymnasium.vector.AutoresetMode`.

    Raises:
        DevicePlacementError: when an argument is wrong, or, in `reset` and `step`, a problem does
            not fit.

    >>> from device_placement.envs import make_evaluator
    >>> machines = ("CPU,GPU", "CPU,GPU.0,GPU.1")
    >>> problems = [make_evaluator("diamond", one, evaluator="simulator") for one in machines]
    >>> envs = ProblemVectorEnv(4, problems, copies_per_problem=2, max_groups=8, max_devices=4)
    >>> observations, infos = envs.reset(seed=0)
    >>> observations["partial_schedule"].shape, envs.action_masks().sum(axis=1).tolist()
    ((4, 4, 28), [2, 2, 3, 3])
    """

    def __init__(
        self,
        num_envs: int,
        problems: Iterable[SimulatedEvaluator],
        *,
        copies_per_problem: int = 1,
        max_groups: int = 300,
        max_devices: int = 8,
        max_edges: int = 1200,
        reward: str = "log_speedup",
        features: Sequence[str] = DEFAULT_BLOCKS,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        self._mode = parse_autoreset(autoreset_mode)
        if self._mode is AutoresetMode.SAME_STEP:
            raise DevicePlacementError(
                "Got the autoreset mode 'SameStep'; allowed are 'NextStep' and 'Disabled', as the "
                "copies of a problem begin together."
            )
        if num_envs < 1 or copies_per_problem < 1 or num_envs % copies_per_problem:
            raise DevicePlacementError(
                f"Got {num_envs} copies and {copies_per_problem} copies per problem; both must be "
                "1 or more, and the first a multiple of the second."
            )
        self._given = problems
        self._problems: Iterator[SimulatedEvaluator] = iter(())
        self._reward = choose("reward", reward or DEFAULT_REWARDS["construct"], REWARDS)
        self._features = tuple(features)
        self.num_envs, self.copies_per_problem = num_envs, copies_per_problem
        self.num_problems = num_envs // copies_per_problem
        self.metadata = {"render_modes": [], "autoreset_mode": self._mode}
        self.layout = Layout(
            max_groups=max_groups,
            max_edges=max_edges,
            num_features=num_features(features),
            num_devices=max_devices,
            num_graphs=self.num_problems,
            costs=True,
            partial=True,
        )
        self.single_observation_space = observation_space(self.layout)
        self.single_action_space = action_space(self.layout, "construct")
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._evaluators: list[SimulatedEvaluator] = []  # of the problems of the moment
        self._baselines: list[Baseline] = []
        self._static: Observation = {}
        self._of = np.repeat(np.arange(self.num_problems), copies_per_problem)  # (num_envs,)
        self._sizes = np.zeros(self.num_problems, dtype=np.int64)  # groups of each problem
        self._num_devices = np.zeros(self.num_problems, dtype=np.int64)
        self._reference_s = np.ones(self.num_problems)
        self._single_s = np.ones(self.num_problems)  # of the fastest single
        # (num_problems, max_groups + 1, max_devices) devices allowed for each group
        self._masks = np.ones((self.num_problems, max_groups + 1, max_devices), dtype=np.bool_)
        self._assignments = np.full((num_envs, max_groups), UNPLACED, dtype=np.int64)
        # (num_envs, max_groups, max_devices + 1) the same as flags
        self._placements = np.zeros((num_envs, max_groups, max_devices + 1), dtype=np.int8)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._time_s = np.ones(num_envs)
        self._ended = np.zeros(num_envs, dtype=np.bool_)  # waiting for a new problem
        self._next_costs: Float32 = np.zeros((0, max_devices, 0), dtype=np.float32)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Any = None
    ) -> tuple[Observation, Infos]:
        """Begin an episode of a new problem in every copy, and return observations and infos.

        A sequence of problems begins again with the first; a generator continues.

        Args:
            seed: is ignored, as the problems decide.
            options: is ignored.
        """
        if not self._evaluators or not isinstance(self._given, Iterator):
            self._problems = iter(self._given)
        self._evaluators = [self._next() for _ in range(self.num_problems)]
        self._baselines = [self._baseline(one) for one in self._evaluators]
        known = [KnownCosts(one.costs, one.schedule) for one in self._evaluators]
        self._partial = PartialFeatures(known, self.num_envs)
        shape = self.num_envs, self.layout.num_devices, len(PARTIAL_SCHEDULE)
        self._next_costs = np.zeros(shape, dtype=np.float32)
        self._static = {}
        self._ended[:] = False
        self._begin(range(self.num_problems))
        return self._observe(), self._describe(np.full(self.num_envs, np.nan))

    def step(self, actions: Any) -> Step:
        """Place one group per copy, evaluate what is complete, and return the usual five values.

        Raises:
            PlacementError: when an action is not the number of a device, up to max_devices.
            ResetNeeded: before the first reset, or in ``Disabled`` after every copy's end.
        """
        waits = self._mode is AutoresetMode.DISABLED
        if not self._evaluators or (waits and self._ended.all()):
            raise ResetNeeded("Call reset() before step().")
        chosen = check_actions(actions, self.action_space.shape, self.layout.num_devices)
        acting = ~self._ended
        finished = [] if waits else np.unique(self._of[self._ended]).tolist()
        rows = np.flatnonzero(acting)
        groups = self._steps[rows]
        self._assignments[rows, groups] = chosen[rows]
        self._placements[rows, groups, chosen[rows]] = 1
        self._placements[rows, groups, UNPLACED] = 0
        self._steps[rows] += 1
        # A device that the problem lacks makes the placement invalid, and counts as the first here.
        lacking = chosen >= self._num_devices[self._of]
        self._set_next(rows, self._partial.place(rows, np.where(lacking, 0, chosen)[rows]))
        ended = acting & (self._steps == self._sizes[self._of])
        time_s, rewards = np.full(self.num_envs, np.nan), np.zeros(self.num_envs)
        for problem in np.unique(self._of[ended]).tolist():
            own = np.flatnonzero(self._of == problem)
            time_s[own], rewards[own] = self._evaluate(problem, own)
        self._ended = ended | (self._ended & waits)
        for problem in finished:
            self._evaluators[problem] = self._next()
            self._baselines[problem] = self._baseline(self._evaluators[problem])
            costs, schedule = self._evaluators[problem].costs, self._evaluators[problem].schedule
            self._partial.replace(problem, KnownCosts(costs, schedule))
        if finished:
            self._begin(finished)
        infos = self._describe(time_s, ended)
        return self._observe(), rewards, ended.copy(), np.zeros_like(ended), infos

    def action_masks(self) -> Bool:
        """Return the devices allowed for each copy's next group, (num_envs, max_devices)."""
        return np.asarray(self._masks[self._of, self._steps])

    @property
    def evaluators(self) -> tuple[SimulatedEvaluator, ...]:
        """The problems of the moment, (num_problems,)."""
        return tuple(self._evaluators)

    def _next(self) -> SimulatedEvaluator:
        """Return the next problem, after checking that it fits."""
        evaluator = next(self._problems)
        coarse, layout = evaluator.coarse, self.layout
        for what, got, most in (
            ("groups", coarse.num_groups, layout.max_groups),
            ("devices", len(evaluator.devices), layout.num_devices),
            ("edges", coarse.num_edges, layout.max_edges),
        ):
            if got > most:
                raise DevicePlacementError(
                    f"Got a problem with {got} {what}, {coarse.graph.name!r}; at most {most} fit. "
                    f"Make the environment with max_{what}={got} or more."
                )
        return evaluator

    def _baseline(self, evaluator: SimulatedEvaluator) -> Baseline:
        return find_baseline(evaluator, lambda one: evaluator.evaluate(one.tolist()))[0]

    def _begin(self, problems: Iterable[int]) -> None:
        """Begin episodes in the copies of some problems, which are new."""
        old = self._static
        self._static = {key: array.copy() for key, array in old.items()}
        for problem in problems:
            evaluator, baseline = self._evaluators[problem], self._baselines[problem]
            coarse, own = evaluator.coarse, np.flatnonzero(self._of == problem)
            number, count = coarse.num_groups, len(evaluator.devices)
            arrays = self._arrays(problem)
            for key, array in arrays.items():
                if key not in self._static:
                    self._static[key] = np.zeros((self.num_envs, *array.shape), array.dtype)
                self._static[key][own] = array
            self._sizes[problem], self._num_devices[problem] = number, count
            self._reference_s[problem] = baseline.reference_s
            self._single_s[problem] = baseline.fastest_s
            self._masks[problem] = np.arange(self.layout.num_devices) < count
            self._masks[problem, :number] = arrays["device_mask"][:number]
            self._assignments[own] = UNPLACED
            self._placements[own] = 0
            self._placements[own, :number, UNPLACED] = 1
            self._steps[own] = 0
            self._time_s[own] = baseline.reference_s
            self._set_next(own, self._partial.begin(own, np.full(len(own), problem)))
        for array in self._static.values():
            array.setflags(write=False)

    def _arrays(self, problem: int) -> Observation:
        """Return the constant arrays of a problem, padded."""
        evaluator, layout = self._evaluators[problem], self.layout
        coarse, count = evaluator.coarse, len(evaluator.devices)
        features = group_features(coarse, self._features)
        arrays = graph_arrays(coarse, features, layout, problem)
        arrays |= cost_arrays(KnownCosts(evaluator.costs, evaluator.schedule), coarse, layout)
        shape = layout.num_devices, NUM_DEVICE_FEATURES
        arrays["device_features"] = np.zeros(shape, dtype=np.float32)
        arrays["device_features"][:count] = self._baselines[problem].features
        return arrays

    def _set_next(self, rows: Int64, features: Float32) -> None:
        """Set the features of the next groups; those of all problems have fewer devices or less."""
        self._next_costs[rows] = 0.0
        self._next_costs[rows, : features.shape[1]] = features

    def _evaluate(self, problem: int, rows: Int64) -> tuple[Float64, Float64]:
        """Return the times of the copies of a problem, NaN if invalid, and their rewards."""
        baseline = self._baselines[problem]
        placements = self._assignments[rows, : self._sizes[problem]]
        time_s = np.full(len(rows), np.nan)
        real = (placements < self._num_devices[problem]).all(axis=1)
        if real.any():
            outcomes = evaluate_placements(self._evaluators[problem], placements[real])
            time_s[real] = outcomes.time_s
        counted = np.where(np.isnan(time_s), baseline.penalty_s, time_s)
        self._time_s[rows] = counted
        reference_s = baseline.reference_s
        rewards = [self._reward(one, reference_s, reference_s) for one in counted.tolist()]
        return time_s, np.array(rewards)

    def _observe(self) -> Observation:
        steps, sizes = self._steps, self._sizes[self._of]
        return observe_many(
            self._static,
            self._placements.copy(),
            np.where(steps < sizes, steps, -1),
            [*map(math.log, (self._time_s / self._reference_s[self._of]).tolist())],
            steps,
            self._next_costs,
        )

    def _describe(self, time_s: Float64, ended: Bool | None = None) -> Infos:
        names = np.array([one.coarse.graph.name for one in self._evaluators], dtype=np.object_)
        given = np.ones(self.num_envs, dtype=np.bool_)
        infos: Infos = {
            "time_s": time_s,
            "valid": ~np.isnan(time_s),
            "single_s": self._single_s[self._of],
            "problem": names[self._of],
        }
        done = np.zeros_like(given) if ended is None else ended
        masks = {"_time_s": done, "_valid": done, "_single_s": given, "_problem": given}
        return infos | masks
