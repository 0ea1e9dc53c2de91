"""Copies of an environment that one policy steps together, and algorithms on them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from device_placement.agents.presets import preset
from device_placement.agents.runs.recording import BudgetError, RecordingEvaluator
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.envs.env import DevicePlacementEnv, prefetch_proposals
from device_placement.envs.evaluation import Evaluation, Evaluator, EvaluatorWrapper
from device_placement.envs.measuring.openvino_evaluator import measures_in_turn


class WithinBudget(EvaluatorWrapper):
    """Evaluator that refuses new placements once the budget is spent, between two copies' steps.

    Args:
        recorder: evaluates, records and counts.
    """

    def __init__(self, recorder: RecordingEvaluator) -> None:
        super().__init__(recorder)
        self._recorder = recorder

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Evaluate one device per group, (num_groups,).

        Raises:
            BudgetError: when the budget is spent and this is new.
        """
        if self._recorder.spent and self._recorder.known(assignment) is None:
            raise BudgetError(
                f"The budget of {self._recorder.budget} placements is spent; end the training."
            )
        return self._recorder.evaluate(assignment)


class SharingVecEnv(DummyVecEnv):
    """`DummyVecEnv` whose copies' placements of a step are prepared together."""

    def step_wait(self) -> VecEnvStepReturn:
        """Step all copies, after several machines have measured what they propose."""
        copies = [one.unwrapped for one in self.envs]
        if len(copies) > 1:
            prefetch_proposals(
                (copy, action)
                for copy, action in zip(copies, self.actions, strict=True)
                if isinstance(copy, DevicePlacementEnv)
            )
        return super().step_wait()


def num_copies(
    card: PolicyCard, evaluators: Sequence[Evaluator], budget: int, horizon: int | None = None
) -> int:
    """Return how many copies of its environment a preset steps together.

    It is the largest divisor of the preset's `copies` by which the steps of an update and, where
    a reward counts for several steps, its episodes can be divided; and the singles, which every
    copy requests, must be no more than the budget. It is 1 where placements are measured by one
    machine, one by one, and for models of different sizes in ``construct``, whose episodes
    would end in the middle of an update. Several targets of a cluster share the copies' placements.

    Args:
        card: of the policy.
        evaluators: one per model.
        budget: distinct placements of the training.
        horizon: steps of an episode; the preset's by default.
    """
    chosen, steps = preset(card.preset, card.formulation), update_steps(card, evaluators)
    sizes = {one.coarse.num_groups for one in evaluators}
    varied = card.formulation == "construct" and len(sizes) > 1
    if varied or not isinstance(steps, int) or any(map(measures_in_turn, evaluators)):
        return 1
    lengths = {
        "assign": 1,
        "construct": max(sizes),
        "refine": horizon or chosen.horizon or max(sizes),
    }
    most = math.gcd(chosen.copies, steps, max(1, steps // lengths[card.formulation]))
    singles = sum(len(one.devices) for one in evaluators)
    fitting = (number for number in range(most, 1, -1) if number * singles <= budget)
    return next((number for number in fitting if most % number == 0), 1)


def update_steps(card: PolicyCard, evaluators: Sequence[Evaluator]) -> object:
    """Return the steps between two updates, of all copies together; anything from an override.

    Args:
        card: of the policy.
        evaluators: one per model.
    """
    chosen = preset(card.preset, card.formulation)
    arguments = chosen.arguments(max(one.coarse.num_groups for one in evaluators))
    return {**arguments, **card.overrides}["n_steps"]


def algorithm_on_copies(
    card: PolicyCard,
    evaluators: Sequence[Evaluator],
    copies: int,
    *,
    horizon: int | None = None,
    reward: str | None = None,
    seed: int = 0,
    torch_device: str = "cpu",
    tensorboard_log: str | None = None,
    profile: str | None = None,
) -> BaseAlgorithm:
    """Make an untrained algorithm on copies of an environment, which share an update's steps.

    Args:
        card: of its policy.
        evaluators: one per model, used by all copies.
        copies: number of environments, as from `num_copies`.
        horizon: steps of an episode; the preset's by default.
        reward: a name of `REWARDS`; the preset's by default.
        seed: see `make_algorithm`; copy i of the environment takes seed + i.
        torch_device: see `make_algorithm`.
        tensorboard_log: see `make_algorithm`.
        profile: see `PolicyCard.make_env`.

    Raises:
        DevicePlacementError: on a horizon below 1, an unknown reward, a wrong override, or if the
            costs to be seen can't be found.
    """
    envs = SharingVecEnv(
        [lambda: Monitor(card.make_env(evaluators, horizon, reward, profile))] * copies
    )
    overrides = dict(card.overrides)
    steps = update_steps(card, evaluators)
    if copies > 1 and isinstance(steps, int):
        overrides["n_steps"] = steps // copies
    return make_algorithm(
        card.preset,
        envs,
        formulation=card.formulation,
        seed=seed,
        torch_device=torch_device,
        tensorboard_log=tensorboard_log,
        overrides=overrides,
    )
