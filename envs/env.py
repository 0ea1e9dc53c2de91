"""Gymnasium environment: an agent proposes a placement, and its time determines the reward.

The class docstring, which `help(DevicePlacementEnv)` shows, specifies the environment; episodes,
formulations and observations are in their own files.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from device_placement.envs.arrays import Assignment, Bool, Float32, Int64
from device_placement.envs.cost_features import PartialFeatures
from device_placement.envs.episode import Baseline, Episode, Incumbent
from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.evaluation import NAN, Evaluation, Evaluator
from device_placement.envs.factory import EvaluatorOptions
from device_placement.envs.formulations import check_actions, unplaced
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.features import DEFAULT_BLOCKS
from device_placement.envs.measuring.openvino_evaluator import executor_of
from device_placement.envs.measuring.validation import Validation, claim_of, validate_placement
from device_placement.envs.observation import Observation, observe
from device_placement.envs.parts import make_parts
from device_placement.envs.placement import Placement
from device_placement.envs.rendering.graph import render_picture
from device_placement.envs.rendering.text import render_text


class DevicePlacementEnv(gym.Env[Any, Any]):
    """Environment in which an agent places a neural network on devices so that it runs fastest.

    ## Description
    The model's ops are coarsened into groups; the agent assigns a device to each group. The
    placement is compiled with OpenVINO's HETERO plugin and per-op affinities, run and
    timed; the reward is minus that time. The three formulations differ in what an action is.

    ## Action Space
    | formulation | space | meaning |
    |---|---|---|
    | ``assign`` | ``MultiDiscrete([num_devices] * max_groups)`` | a whole placement |
    | ``construct`` | ``Discrete(num_devices)`` | the next group's device, in topological order |
    | ``refine`` | ``Discrete(max_groups * num_devices)`` | index = group * num_devices + device: |
    | | | move one group; a move that changes nothing is legal |

    ``action_masks()`` returns which devices can run which group. Padding allows only device 0,
    and its value is ignored. A masked choice for a real group makes the evaluation invalid; if no
    device can run a group, nothing is masked.

    ## Observation Space
    A flat ``Dict`` of finite ``Box``es, padded to the largest of the given models:

    | key | shape, type | content |
    |---|---|---|
    | ``node_features`` | (max_groups, num_features) float32 | the chosen feature blocks |
    | ``node_mask`` | (max_groups,) int8 | 1 = real group |
    | ``edge_index`` | (2, max_edges) int32 | producer, consumer |
    | ``edge_features`` | (max_edges, 2) float32 | log bytes, log number of tensors |
    | ``edge_mask`` | (max_edges,) int8 | 1 = real edge |
    | ``placement`` | (max_groups, num_devices + 1) int8 | one-hot; last slot = unplaced |
    | ``cursor`` | (max_groups,) int8 | the group to place (``construct``) |
    | ``device_mask`` | (max_groups, num_devices) int8 | 1 = the device may run the group |
    | ``device_features`` | (num_devices, 4) float32 | log single time over reference, share of |
    | | | ops supported, share of weights that fit, 1 for the reference |
    | ``last_time`` | (1,) float32 | log(time / reference time) of the last placement |
    | ``step`` | (1,) int32 | actions of the episode so far |
    | ``graph_id`` | (1,) int32 | which of the given models |

    With ``costs="profile"`` also these, without units; `envs/observation.py` lists what each
    column holds:

    | key | shape, type | content |
    |---|---|---|
    | ``group_device_costs`` | (max_groups * num_devices, 4) float32 | times of groups; |
    | | | row = group * num_devices + device |
    | ``group_costs`` | (max_groups, 9) float32 | levels, moves and weights of groups |
    | ``edge_costs`` | (max_edges, 4) float32 | times of moves |
    | ``device_costs`` | (num_devices, 8) float32 | totals, memory, alike and faster devices |
    | ``graph_costs`` | (11,) float32 | critical path, moves, sizes, the schedule |
    | ``costs_known`` | (2,) int8 | 1 = times of groups are known; 1 = those of moves are |
    | ``partial_schedule`` | (num_devices, 24) float32 | only in ``construct``: what the groups |
    | | | placed so far mean for the group at the cursor on each device |

    ## Rewards
    In ``assign``, minus the milliseconds per inference (``negative_ms``); in ``construct`` the
    same at the last step, and 0 before; in ``refine`` the milliseconds saved
    (``improvement_ms``). Other choices: ``log_speedup``, ``log_improvement``, ``relative``,
    ``inverse`` (as HSDAG), ``speedup``, ``negative_sqrt`` (as Mirhoseini et al. 2017). An invalid
    placement costs twice the slowest valid single and does not end the episode; the reason is in
    ``info["error"]``. In ``refine`` its move is undone.

    ## Starting State
    No group is placed; ``refine`` starts from the reference single or from ``start``. With
    several models, one is drawn at random or chosen by ``options={"graph_id": ...}``.

    ## Episode End
    ``assign`` and ``refine`` are truncated after ``horizon`` steps (``assign`` with
    ``horizon=1`` terminates); ``construct`` terminates when every group is placed.

    ## Information
    | key | content |
    | --- | --- |
    | ``time_s`` | seconds per inference |
    | ``samples_s``, ``interval_s`` | the samples, and the 95 % interval of their median |
    | ``valid``, ``error`` | whether the placement ran, and if not, why |
    | ``speedup`` | reference time / time |
    | ``num_subgraphs`` | pieces that are compiled and run separately |
    | ``compile_s`` | seconds of compiling |
    | ``cached`` | True: from the cache, nothing was run |
    | ``cut_short`` | True: stopped early, as it is clearly slower than the best; the time, and |
    | | so the reward, is coarse |
    | ``placement`` | the device number of each group; -1 = unplaced |
    | ``best_time_s``, ``best_placement`` | the best of this environment's lifetime on the |
    | | current model, singles included |
    | ``output_error``, ``output_cosine`` | relative L2 error and cosine of the outputs, where |
    | | they are verified |
    | ``unverified`` | why outputs can't be compared: the reference's differ between runs |
    | ``repaired`` | how many groups ``repair`` moved before the placement was evaluated |

    If nothing was evaluated, times are NaN, ``valid`` is False and ``error`` is empty.

    ## Arguments
    Args:
        model: what `load_model` takes, or a list of it; for the simulator also files of
            `load_workload` and ``generated:SEED``.
        devices: what `parse_devices` takes: ``"auto"``, ``"CPU,GPU.0"``, a list; the first
            is the reference.
        formulation: ``assign``, ``construct`` or ``refine``.
        horizon: steps of an episode in ``assign`` and ``refine``.
        reward: a name of `REWARDS`; by default that of the formulation.
        features: names of the feature blocks.
        start: where ``refine`` starts: a `Placement`, or the path of a saved one.
        evaluator: ``openvino``, ``simulator``, or an `Evaluator` (or a list, one per model; then
            ``model``, ``devices`` and ``options`` are ignored).
        costs: ``none``, or ``profile`` to show costs to agents: those of the simulator, or, if
            placements are measured, those of ``profile``, a `HardwareProfile` or its file; by
            default every device then runs the model once with OpenVINO's profiler.
        repair: how a placement that breaks ``constraints``, memory limits or colours is repaired
            before it is evaluated: ``none`` (it is invalid), ``fix`` (groups that can't stay go to
            the nearest device that is left), ``sample`` (they are drawn), ``nearest`` (fewest
            moves, by CP-SAT; slow). The action, and so its probability, stays what was proposed.
        render_mode: ``text`` or ``rgb_array``.
        options: passed to `make_evaluator`. For every evaluator ``coarsening`` (``fusion``,
            ``colocation`` or ``none``), ``max_groups`` (the maximum per model) and
            ``input_shapes`` (static shapes for models with dynamic ones, as in `load_model`).
            For the simulator ``hardware`` (``desktop``, ``small_gpu``, ``paper``, ``laptop``,
            ``server`` or ``mcm``) or ``profile`` (a `HardwareProfile` or its file), ``schedule``
            (``sequential``, ``concurrent``, ``dataflow``, ``pipelined`` or ``max_load``; by default
            ``sequential``, or that of a generated problem or of ``mcm``), and ``constraints``
            (names of `CONSTRAINTS`; by default those of the hardware). For OpenVINO ``inputs`` (an
            array for each input by name, a list of such samples, or an ``.npz`` file of either;
            invented by default), and ``measuring``, a `MeasureConfig`, or its fields as keywords:
            ``objective`` (``latency`` or ``throughput``), ``timing``, ``tolerance``,
            ``tolerance_growth``, ``isolation``, ``timeout_s``, ``store``, ``reference``,
            ``verify``, ``max_output_error``, ``on`` and ``target`` (the address of a cluster that
            measures, and which of its machines) and others.

    ## Registered Configurations
    ``DevicePlacement-v0``, ``DevicePlacementConstruct-v0``, ``DevicePlacementRefine-v0``
    measure; ``SimulatedDevicePlacement-v0``, ``SimulatedDevicePlacementConstruct-v0``,
    ``SimulatedDevicePlacementRefine-v0`` predict, by default for a CPU and a GPU, which the machine
    need not have. `DevicePlacementVectorEnv`, made by ``gym.make_vec``, steps many copies of the
    first two at once.

    ## Version History
    v0: first version.

    >>> env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", model="diamond")
    >>> observation, info = env.reset(seed=0)
    >>> observation, reward, *_ = env.step(env.action_space.sample())
    >>> reward < 0
    True
    """

    metadata = {  # noqa: RUF012 - Gymnasium declares it as an instance variable
        "render_modes": ["text", "rgb_array"],
        "render_fps": 4,
    }

    def __init__(
        self,
        model: Any = "resnet50",
        devices: Any = "auto",
        *,
        formulation: str = "assign",
        horizon: int = 20,
        reward: str | None = None,
        features: Sequence[str] = DEFAULT_BLOCKS,
        start: Placement | str | os.PathLike[str] | None = None,
        evaluator: str | Evaluator | Sequence[Evaluator] = "openvino",
        costs: str = "none",
        repair: str = "none",
        render_mode: str | None = None,
        **options: Unpack[EvaluatorOptions],
    ) -> None:
        if render_mode is not None:
            choose("render mode", render_mode, dict.fromkeys(self.metadata["render_modes"]))
        self.render_mode = render_mode
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
        self._partial: PartialFeatures | None = None
        if self._parts.layout.partial:
            self._partial = PartialFeatures(self._parts.known, num_rows=1)
        self.evaluators = self._parts.evaluators
        self.layout = self._parts.layout
        self.observation_space = self._parts.observation_space
        self.action_space = self._parts.action_space
        self._formulation = self._parts.formulation
        self._owns_evaluators = isinstance(evaluator, str)
        self._start = start
        self._incumbent = Incumbent(self.evaluators)
        self._next_costs: Float32 | None = None  # of the group at the cursor
        self._episode = self._begin(0)

    @property
    def coarse(self) -> CoarseGraph:
        """The groups of the current model."""
        return self.evaluator.coarse

    @property
    def evaluator(self) -> Evaluator:
        """The evaluator of the current model."""
        return self.evaluators[self._episode.graph_id]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode, and return its observation and info.

        The first episode of a model evaluates its singles.
        """
        super().reset(seed=seed)
        chosen = (options or {}).get("graph_id")
        self._episode = self._begin(self._parts.draw_graph(self.np_random, chosen))
        self._episode.time_s = self.baseline().reference_s
        if self._formulation.starts_placed:
            start = self._start_assignment()
            evaluation = self._incumbent.evaluate(self._episode.graph_id, start)
            if not evaluation.valid:
                raise PlacementError(
                    f"Got an invalid start placement: {evaluation.error} Give a valid one as start."
                )
            self._episode.assignment, self._episode.evaluation = start, evaluation
            self._episode.time_s = evaluation.time_s
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action, evaluate the placement if it is due, and return the usual values.

        Raises:
            PlacementError: when the action is outside the space; then nothing changes.
        """
        episode, num_groups = self._episode, self.coarse.num_groups
        action = self._check(action)
        episode.step += 1
        proposal = self._formulation.act(episode.assignment, action, episode.step)
        episode.evaluation, episode.repaired, reward = None, 0, 0.0
        undone = False
        if self._formulation.is_due(num_groups, episode.step):
            proposal, episode.repaired = self._parts.repaired(
                episode.graph_id, proposal, self.np_random
            )
            episode.evaluation = self._incumbent.evaluate(episode.graph_id, proposal)
            time_s = episode.evaluation.time_s
            if not episode.evaluation.valid:
                time_s = self.baseline().penalty_s
                undone = self._formulation.undoes_invalid
            reward = self._parts.reward(time_s, episode.time_s, self.baseline().reference_s)
            episode.time_s = episode.time_s if undone else time_s
        if not undone:
            episode.assignment = proposal
        self._advance(proposal, episode.step)
        terminated, truncated = self._formulation.ends(num_groups, episode.step)
        return self._observe(), reward, terminated, truncated, self._info()

    def proposal(self, action: Any) -> Assignment | None:
        """Return the placement that `step` would evaluate, or None; nothing changes.

        Raises:
            PlacementError: when the action is outside the space.
        """
        step = self._episode.step + 1
        proposal = self._formulation.act(self._episode.assignment, self._check(action), step)
        return proposal if self._formulation.is_due(self.coarse.num_groups, step) else None

    def action_masks(self) -> Bool:
        """Return the flat mask of the actions allowed next, as sb3-contrib's MaskablePPO needs."""
        episode = self._episode
        masks = self._formulation.masks(self.coarse.supported, episode.step)
        return self._parts.mask_actions(episode.graph_id, masks, episode.assignment, episode.step)

    def _check(self, action: Any) -> Int64:
        space = self.action_space
        choices = space.n if isinstance(space, spaces.Discrete) else self.layout.num_devices
        return check_actions(action, space.shape, int(choices))

    def snapshot(self) -> dict[str, Any]:
        """Return the state of the env and of its random generator as plain data, for `restore`.

        >>> env = DevicePlacementEnv("diamond", evaluator="simulator")
        >>> _ = env.reset(seed=0)
        >>> kept = env.snapshot()
        >>> first = env.step([0, 1, 0, 1])
        >>> _ = env.restore(kept)
        >>> env.step([0, 1, 0, 1])[1] == first[1]
        True
        """
        return {
            "episode": self._episode.to_json(),
            "best": self._incumbent.to_json(),
            "np_random": self.np_random.bit_generator.state,
        }

    def restore(self, snapshot: Mapping[str, Any]) -> Observation:
        """Restore a `snapshot` of this env or of one with the same arguments.

        Args:
            snapshot: as returned, or read back from JSON.

        Returns:
            The observation at that moment.
        """
        self._incumbent.restore(snapshot["best"])
        self._episode = Episode.from_json(snapshot["episode"])
        self.np_random.bit_generator.state = snapshot["np_random"]
        if self._partial is not None:
            self._begin(self._episode.graph_id)
            for step in range(1, self._episode.step + 1):
                self._advance(self._episode.assignment, step)
        return self._observe()

    def placement(self, assignment: Sequence[int] | None = None) -> Placement:
        """Return a placement to apply or save: of the given devices, or the best so far.

        Raises:
            PlacementError: when no valid placement was evaluated yet, or the devices don't fit.
        """
        if assignment is not None:
            return Placement.from_groups(
                self.coarse, self.evaluator.devices, assignment, executor_of(self.evaluator)
            )
        best_s, assignment = self._incumbent.best(self._episode.graph_id)
        best = Placement.from_groups(
            self.coarse, self.evaluator.devices, assignment, executor_of(self.evaluator)
        )
        baseline = self.baseline()
        claim = claim_of(self.evaluator, baseline.reference, baseline.reference_s / best_s)
        return replace(best, claim=claim)

    def validate(self, placement: Placement | Sequence[int] | None = None) -> Validation:
        """Measure a placement and the singles again, check its outputs, and return the result.

        Args:
            placement: a `Placement`, or (num_groups,) device numbers; the best so far if None.

        Raises:
            PlacementError: when it does not fit, or no valid placement was evaluated yet.
            DevicePlacementError: when the evaluator does not measure.
        """
        if not isinstance(placement, Placement):
            placement = self.placement(placement)
        return validate_placement(self.evaluator, placement)

    def render(self) -> Any:
        """Return the current placement as text or as a (height, width, 3) uint8 picture."""
        if self.render_mode is None:
            raise DevicePlacementError(
                "Got no render_mode, which render() needs; use gym.make(..., render_mode='text') "
                "or 'rgb_array'."
            )
        draw = render_text if self.render_mode == "text" else render_picture
        shown = self._episode.evaluation or Evaluation(time_s=NAN)
        names = [device.name for device in self.evaluator.devices]
        assignment = self._episode.assignment.tolist()
        return draw(self.coarse, names, assignment, shown.time_s, shown.num_subgraphs)

    def close(self) -> None:
        """Close the evaluators that this env made, which ends their measuring processes."""
        if self._owns_evaluators:
            for evaluator in self.evaluators:
                evaluator.close()
        super().close()

    def baseline(self) -> Baseline:
        """Return the baseline of the current model; the first call evaluates its singles."""
        return self._incumbent.baseline(self._episode.graph_id)

    def _begin(self, graph_id: int) -> Episode:
        if self._partial is not None:
            self._next_costs = self._partial.begin(np.array([0]), np.array([graph_id]))[0]
        return Episode(graph_id, unplaced(self.evaluators[graph_id].coarse.num_groups))

    def _advance(self, assignment: Assignment, step: int) -> None:
        """Place the group of a step in the partial schedule, if agents see one."""
        if self._partial is not None:
            self._next_costs = self._partial.place(np.array([0]), assignment[[step - 1]])[0]

    def _start_assignment(self) -> Assignment:
        if self._start is None:
            return self.baseline().start(self.coarse.num_groups)
        start = self._start
        if not isinstance(start, Placement):
            start = Placement.load(start)
        return np.array(start.with_devices(self.evaluator.devices).to_groups(self.coarse))

    def _observe(self) -> Observation:
        baseline, episode = self.baseline(), self._episode
        return observe(
            self._parts.static[episode.graph_id],
            baseline.features,
            self.layout,
            episode.assignment,
            self._formulation.cursor(self.coarse.num_groups, episode.step),
            math.log(episode.time_s / baseline.reference_s),
            episode.step,
            self._next_costs,
        )

    def _info(self) -> dict[str, Any]:
        best = self._incumbent.best(self._episode.graph_id)
        return self._episode.information(self.baseline().reference_s, *best)


def prefetch_proposals(steps: Iterable[tuple[DevicePlacementEnv, Any]]) -> None:
    """Let evaluators prepare for the placements that some copies evaluate in their next step.

    Args:
        steps: each copy with its action.
    """
    wanted: dict[int, tuple[Evaluator, list[list[int]]]] = {}
    for env, action in steps:
        if (proposal := env.proposal(action)) is not None:
            evaluator = env.evaluator
            wanted.setdefault(id(evaluator), (evaluator, []))[1].append(proposal.tolist())
    for evaluator, placements in wanted.values():
        evaluator.prefetch(placements)
