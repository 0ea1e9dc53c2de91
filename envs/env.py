"""Gymnasium environment: an agent proposes a placement, and its time gives the reward.

A third of this file is the environment's contract, which `help(DevicePlacementEnv)` shows;
episodes, formulations and observations have files of their own.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import gymnasium as gym
import numpy as np

from device_placement.envs.arrays import Assignment, Bool
from device_placement.envs.episode import Baseline, Episode, Incumbent
from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.evaluation import NAN, Evaluation, Evaluator
from device_placement.envs.factory import EvaluatorOptions, make_parts
from device_placement.envs.formulations import unplaced
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.graph.features import DEFAULT_BLOCKS
from device_placement.envs.measuring.validation import Validation, claim_of, validate_placement
from device_placement.envs.observation import Observation, observe
from device_placement.envs.placement import Placement
from device_placement.envs.rendering.graph import render_picture
from device_placement.envs.rendering.text import render_text


class DevicePlacementEnv(gym.Env[Any, Any]):
    """Which device should run which part of a neural network, so that it finishes soonest?

    ## Description
    The model's ops are coarsened into groups; the agent gives each group a device. The
    placement is compiled with OpenVINO's HETERO plugin and per-op affinities, run and
    timed; the reward is minus that time. Three formulations differ in what one action is.

    ## Action Space
    | formulation | space | meaning |
    |---|---|---|
    | ``assign`` | ``MultiDiscrete([num_devices] * max_groups)`` | a whole placement |
    | ``construct`` | ``Discrete(num_devices)`` | the next group's device, in topological order |
    | ``refine`` | ``Discrete(max_groups * num_devices)`` | index = group * num_devices + device: |
    | | | move one group; a move that changes nothing is legal |

    ``action_masks()`` tells which devices can run which group. Padding allows device 0
    only and its value is ignored. A masked choice for a real group makes the evaluation
    invalid; where no device can run a group, nothing is masked.

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

    ## Rewards
    Minus milliseconds per inference (``negative_ms``) in ``assign``, and in ``construct`` at
    the last step, 0 before; the milliseconds saved (``improvement_ms``) in ``refine``. Others
    by name: ``log_speedup``, ``log_improvement``, ``relative``, ``inverse`` (as HSDAG),
    ``negative_sqrt`` (as Mirhoseini et al. 2017). An invalid placement costs twice the slowest
    valid single, ends nothing, and says why in ``info["error"]``; in ``refine`` the move is
    undone.

    ## Starting State
    No group is placed; ``refine`` starts from the reference single or from ``start``. With
    several models one is drawn, or taken from ``options={"graph_id": ...}``.

    ## Episode End
    ``assign`` and ``refine`` are truncated after ``horizon`` steps (``assign`` with
    ``horizon=1`` terminates); ``construct`` terminates when every group is placed.

    ## Information
    ``time_s``, ``samples_s``, ``interval_s``, ``valid``, ``error``, ``speedup`` (over the
    reference), ``num_subgraphs``, ``compile_s``, ``cached`` (known from before), ``cut_short``
    (given up early: clearly slow), ``placement``, ``best_time_s`` and ``best_placement`` (of this
    env's lifetime and the current model, singles included), ``output_error`` (relative L2, where
    outputs are verified) and ``output_cosine``. Times are NaN, ``valid`` is False and ``error``
    empty where nothing was evaluated; -1 in a placement is a group without a device.

    ## Arguments
    Args:
        model: what `load_model` takes, or a list of such; for the simulator also files of
            `load_workload`.
        devices: what `parse_devices` takes: ``"auto"``, ``"CPU,GPU.0"``, a list; the first
            is the reference.
        formulation: ``assign``, ``construct`` or ``refine``.
        horizon: steps of an episode in ``assign`` and ``refine``.
        reward: a name of `REWARDS`; the formulation's own by default.
        features: names of the feature blocks.
        start: where ``refine`` starts: a `Placement`, or the path of a saved one.
        evaluator: ``openvino``, ``simulator``, or an `Evaluator` (or a list of them, one a
            model; ``model``, ``devices`` and what follows from them is then not used).
        render_mode: ``text`` or ``rgb_array``.
        options: passed on to `make_evaluator`. For every evaluator ``coarsening`` (``fusion``,
            ``colocation`` or ``none``), ``max_groups`` (the most groups to make of one model) and
            ``input_shapes`` (static shapes for models of dynamic ones, as `load_model` takes
            them). For the simulator ``hardware`` (``desktop``, ``small_gpu``, ``paper``,
            ``laptop`` or ``server``) or ``profile`` (a `HardwareProfile` or its file), and
            ``schedule`` (``sequential``, ``concurrent``, ``pipelined`` or ``max_load``). For
            OpenVINO ``measuring``, a `MeasureConfig`, or its fields by name: ``objective``
            (``latency`` or ``throughput``), ``timing``, ``tolerance``, ``isolation``,
            ``timeout_s``, ``store``, ``reference``, ``verify``, ``max_output_error`` and others.

    ## Registered Configurations
    ``DevicePlacement-v0``, ``DevicePlacementConstruct-v0``, ``DevicePlacementRefine-v0``
    measure; ``SimulatedDevicePlacement-v0``, ``SimulatedDevicePlacementConstruct-v0``,
    ``SimulatedDevicePlacementRefine-v0`` predict, by default for a CPU and a GPU that need not be
    here. Many copies of the first two step at once in `DevicePlacementVectorEnv`, which
    ``gym.make_vec`` makes.

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
        render_mode: str | None = None,
        **options: Unpack[EvaluatorOptions],
    ) -> None:
        if render_mode is not None:
            choose("render mode", render_mode, dict.fromkeys(self.metadata["render_modes"]))
        self.render_mode = render_mode
        self._parts = make_parts(
            model, devices, evaluator, formulation, horizon, reward, features, **options
        )
        self.evaluators = self._parts.evaluators
        self.layout = self._parts.layout
        self.observation_space = self._parts.observation_space
        self.action_space = self._parts.action_space
        self._formulation = self._parts.formulation
        self._owns_evaluators = isinstance(evaluator, str)
        self._start = start
        self._incumbent = Incumbent(self.evaluators)
        self._episode = self._begin(0)

    @property
    def coarse(self) -> CoarseGraph:
        """The groups of the current model."""
        return self.evaluator.coarse

    @property
    def evaluator(self) -> Evaluator:
        """Who evaluates the placements of the current model."""
        return self.evaluators[self._episode.graph_id]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode; the first one of a model evaluates its singles."""
        super().reset(seed=seed)
        chosen = (options or {}).get("graph_id")
        self._episode = self._begin(self._parts.draw_graph(self.np_random, chosen))
        self._episode.time_s = self.baseline().reference_s
        if self._formulation.starts_placed:
            start = self._start_assignment()
            evaluation = self._incumbent.evaluate(self._episode.graph_id, start)
            if not evaluation.valid:
                raise PlacementError(f"The start placement is invalid: {evaluation.error}")
            self._episode.assignment, self._episode.evaluation = start, evaluation
            self._episode.time_s = evaluation.time_s
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Change the placement; evaluate it where the formulation says so."""
        episode, num_groups = self._episode, self.coarse.num_groups
        episode.step += 1
        proposal = self._formulation.act(episode.assignment, action, episode.step)
        episode.evaluation, reward = None, 0.0
        undone = False
        if self._formulation.is_due(num_groups, episode.step):
            episode.evaluation = self._incumbent.evaluate(episode.graph_id, proposal)
            time_s = episode.evaluation.time_s
            if not episode.evaluation.valid:
                time_s = self.baseline().penalty_s
                undone = self._formulation.undoes_invalid
            reward = self._parts.reward(time_s, episode.time_s, self.baseline().reference_s)
            episode.time_s = episode.time_s if undone else time_s
        if not undone:
            episode.assignment = proposal
        terminated, truncated = self._formulation.ends(num_groups, episode.step)
        return self._observe(), reward, terminated, truncated, self._info()

    def action_masks(self) -> Bool:
        """The actions allowed next, flat: what sb3-contrib's MaskablePPO asks for."""
        return self._formulation.masks(self.coarse.supported, self._episode.step)

    def snapshot(self) -> dict[str, Any]:
        """Where the episode stands and what is drawn next, as plain data for `restore`.

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
        """Go back to where a `snapshot` was taken, of this env or of one like it.

        Args:
            snapshot: as it was given, or read back from JSON.

        Returns:
            The observation at that moment.
        """
        self._incumbent.restore(snapshot["best"])
        self._episode = Episode.from_json(snapshot["episode"])
        self.np_random.bit_generator.state = snapshot["np_random"]
        return self._observe()

    def placement(self, assignment: Sequence[int] | None = None) -> Placement:
        """A placement to apply or save: of the given devices, or of the best ones so far.

        Raises:
            PlacementError: when nothing valid was evaluated yet, or the devices don't fit.
        """
        if assignment is not None:
            return Placement.from_groups(self.coarse, self.evaluator.devices, assignment)
        best_s, assignment = self._incumbent.best(self._episode.graph_id)
        best = Placement.from_groups(self.coarse, self.evaluator.devices, assignment)
        baseline = self.baseline()
        claim = claim_of(self.evaluator, baseline.reference, baseline.reference_s / best_s)
        return replace(best, claim=claim)

    def validate(self, placement: Placement | Sequence[int] | None = None) -> Validation:
        """Measure a placement and the singles anew, and check the placement's outputs.

        Args:
            placement: a `Placement`, or (num_groups,) device numbers; the best so far without.

        Raises:
            PlacementError: when it does not fit, or nothing valid was evaluated yet.
            DevicePlacementError: when the evaluator does not measure.
        """
        if not isinstance(placement, Placement):
            placement = self.placement(placement)
        return validate_placement(self.evaluator, placement)

    def render(self) -> Any:
        """The current placement as text or as a (height, width, 3) uint8 picture."""
        if self.render_mode is None:
            raise DevicePlacementError(
                "render() needs a mode: gym.make(..., render_mode='text') or 'rgb_array'."
            )
        draw = render_text if self.render_mode == "text" else render_picture
        shown = self._episode.evaluation or Evaluation(time_s=NAN)
        names = [device.name for device in self.evaluator.devices]
        assignment = self._episode.assignment.tolist()
        return draw(self.coarse, names, assignment, shown.time_s, shown.num_subgraphs)

    def close(self) -> None:
        """End the measuring processes of the evaluators that this env made."""
        if self._owns_evaluators:
            for evaluator in self.evaluators:
                evaluator.close()
        super().close()

    def baseline(self) -> Baseline:
        """What the singles of the current model say; evaluates them on the first call."""
        return self._incumbent.baseline(self._episode.graph_id)

    def _begin(self, graph_id: int) -> Episode:
        return Episode(graph_id, unplaced(self.evaluators[graph_id].coarse.num_groups))

    def _start_assignment(self) -> Assignment:
        if self._start is None:
            return np.full(self.coarse.num_groups, self.baseline().reference, dtype=np.int64)
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
        )

    def _info(self) -> dict[str, Any]:
        best = self._incumbent.best(self._episode.graph_id)
        return self._episode.information(self.baseline().reference_s, *best)
