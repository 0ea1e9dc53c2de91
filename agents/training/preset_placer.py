"""Presets as placers: train an agent with an evaluator and a budget, like any search."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from device_placement.agents.placers import PLACERS, make_placer
from device_placement.agents.placers.base import (
    BudgetedEvaluator,
    Placer,
    PlacerResult,
    Trace,
    check_names,
    check_options,
)
from device_placement.agents.presets import PRESETS, preset
from device_placement.agents.runs.recording import BudgetError, RecordingEvaluator
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.copies import algorithm_on_copies, num_copies
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.envs.errors import choose
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.parts import COSTS
from device_placement.envs.repair.repairer import REPAIRS

NEW = 0.01  # largest share of new placements in a settled policy's requests


@dataclass(frozen=True)
class PresetPlacer:
    """Training of a preset on one problem, as a search for the best placement it meets.

    It ends when the budget is spent, or when the policy has settled and hardly proposes anything
    new.

    Raises:
        DevicePlacementError: on an unknown preset, formulation, feature block or costs, or an
            option out of range.

    >>> from device_placement.envs import make_evaluator
    >>> evaluator = make_evaluator("diamond", "CPU,GPU", evaluator="simulator")
    >>> PresetPlacer("ppo").place(evaluator, budget=10, seed=0).assignment
    (0, 0, 0, 0)
    """

    preset: str
    """Name of the preset."""
    formulation: str | None = None
    """How an episode builds a placement; the preset's by default."""
    horizon: int | None = None
    """Steps of an episode in assign and refine; the preset's by default."""
    settled: int = 500
    """Requests after which training ends if fewer than one in a hundred of them was new."""
    without: tuple[str, ...] = ()
    """Feature blocks of the preset to leave out."""
    costs: str | None = None
    """Costs that the agent sees, ``none`` or ``profile``; the preset's by default."""
    repair: str = "none"
    """Repair of invalid placements before they are evaluated: none, fix, sample or nearest."""

    def __post_init__(self) -> None:
        blocks = preset(self.preset, self.formulation).features
        for name in self.without:
            choose(f"feature block of {self.preset}", name, dict.fromkeys(blocks))
        if self.costs is not None:
            choose("costs", self.costs, COSTS)
        choose("repair", self.repair, dict.fromkeys(REPAIRS))
        check_options(self, settled=(1, math.inf))

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`."""
        trace = Trace(evaluator, budget)
        trace.singles()
        card = PolicyCard.of(self.preset, self.formulation, [evaluator], self.costs)
        features = tuple(block for block in card.features if block not in self.without)
        card = dataclasses.replace(card, features=features, repair=self.repair)
        evaluators = [BudgetedEvaluator(trace)]
        copies = num_copies(card, evaluators, trace.recorder.budget, self.horizon)
        algorithm = algorithm_on_copies(card, evaluators, copies, horizon=self.horizon, seed=seed)
        algorithm.set_logger(Logger(folder=None, output_formats=[]))  # otherwise it makes a folder
        limit = card.max_steps(trace.recorder.coarse.num_groups, trace.recorder.budget)
        callbacks = [SearchCallback([trace.recorder]), _Settled(trace.recorder, self.settled)]
        with contextlib.suppress(BudgetError):  # between the steps of several copies
            algorithm.learn(limit, callback=callbacks)
        return trace.result()


class _Settled(BaseCallback):
    """Callback that ends training when hardly any of the last requests was new."""

    def __init__(self, recorder: RecordingEvaluator, requests: int) -> None:
        super().__init__()
        self._recorder, self._requests = recorder, requests
        self._distinct, self._at = 0, 0

    def _on_step(self) -> bool:
        recorder = self._recorder
        requests = recorder.num_requests - self._at
        if requests < self._requests:
            return True
        new = recorder.num_distinct - self._distinct
        self._distinct, self._at = recorder.num_distinct, recorder.num_requests
        return new >= NEW * requests


def named_search(name: str, **options: Any) -> Placer:
    """Make a placer from the name of a placer or preset.

    Args:
        name: a name of `PLACERS` or of `PRESETS`.
        options: the fields of its class.

    Raises:
        DevicePlacementError: on an unknown name, or an option out of range.

    >>> named_search("nodewise_ppo", settled=50).settled, named_search("random")
    (50, RandomSearch())
    """
    choose("search", name, {**PLACERS, **PRESETS})
    if name in PLACERS:
        return make_placer(name, **options)
    check_names(name, PresetPlacer, options)
    return PresetPlacer(**{"preset": name, **options})
