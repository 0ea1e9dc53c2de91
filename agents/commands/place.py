"""Command `place`: place a model at once, with a policy that was trained on others."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Protocol

from device_placement.agents.commands.config import PlaceConfig
from device_placement.agents.placers.base import Trace
from device_placement.agents.placers.pretrained.placer import (
    Elite,
    Pretrained,
    PretrainedPolicy,
    distinct_samples,
    one_thread,
)
from device_placement.agents.placers.pretrained.weights import SUFFIX, load_weights
from device_placement.agents.runs.run import ModelRun, Run
from device_placement.agents.runs.summary import finish
from device_placement.agents.training.algorithms import check_torch_device, greedy_assignment
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.checkpoints import Checkpoints
from device_placement.agents.training.policy_file import PolicyCard, load_policy, read_card
from device_placement.agents.training.sampling import best_of_samples, check_counts, last_horizon
from device_placement.envs.devices import parse_devices
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.untrusted import check_file_devices

SAMPLES = 16  # default, of a policy.zip


class Policy(Protocol):
    """Trained policy on the model to place."""

    first_row: str
    """Row of the table for `first`."""

    def first(self) -> list[int]:
        """Return the placement to evaluate first, (num_groups,)."""

    def greedy(self) -> list[int]:
        """Return its greedy placement, (num_groups,)."""

    def best_of(self, samples: int) -> list[int]:
        """Evaluate samples and return the fastest, (num_groups,); empty if none is valid."""

    def finetune(self, number: int) -> None:
        """Learn from further placements."""


class TrainedPolicy:
    """Policy of a training run.

    Args:
        config: the settings.
        card: of the policy.
        model: to place.
    """

    first_row = "policy, greedy"

    def __init__(self, config: PlaceConfig, card: PolicyCard, model: ModelRun) -> None:
        self._card, self._model, self._profile = card, model, config.profile
        env = card.make_env(model.recorder, profile=config.profile)
        self._algorithm = load_policy(config.policy, env, config.seed, config.torch_device)

    def first(self) -> list[int]:
        """Return its greedy placement."""
        return self.greedy()

    def greedy(self) -> list[int]:
        """Return its greedy placement; its evaluations are outside the budget."""
        horizon = last_horizon(self._card)
        env = self._card.make_env(self._model.evaluator, horizon=horizon, profile=self._profile)
        return greedy_assignment(self._algorithm, env)

    def best_of(self, samples: int) -> list[int]:
        """Evaluate samples and return the fastest."""
        recorders = [self._model.recorder]
        return best_of_samples(self._algorithm, self._card, recorders, 0, samples, self._profile)

    def finetune(self, number: int) -> None:
        """Train on further placements."""
        model, card = self._model, self._card
        checkpoints = Checkpoints(model.folder / "policy.zip", card)
        limit = card.max_steps(model.evaluator.coarse.num_groups, number)
        self._algorithm.tensorboard_log = str(model.folder / "tensorboard")
        self._algorithm.learn(limit, callback=[SearchCallback([model.recorder]), checkpoints])


class PretrainedOnModel:
    """Policy with pretrained weights.

    Args:
        config: the settings.
        model: to place.
    """

    first_row = "policy, at once"

    def __init__(self, config: PlaceConfig, model: ModelRun) -> None:
        self._trace = Trace(model.recorder, model.recorder.budget)
        profile = config.profile or "auto"
        self._policy = PretrainedPolicy.load(config.policy, model.recorder, profile, config.seed)
        self._first = self._policy.first()

    def greedy(self) -> list[int]:
        """Return its greedy placement."""
        return self._policy.greedy()

    def first(self) -> list[int]:
        """Return its greedy placement, or one of `lookahead`; see `PretrainedPolicy`."""
        return self._first

    def best_of(self, samples: int) -> list[int]:
        """Evaluate samples and return the fastest."""
        drawn = distinct_samples(self._policy, samples).tolist()
        self._trace.prefetch(drawn)
        times_s = [self._trace.time_s(one) for one in drawn]
        best = min(range(len(drawn)), key=times_s.__getitem__)
        return drawn[best] if math.isfinite(times_s[best]) else []

    def finetune(self, number: int) -> None:
        """Learn by the elite rule until the budget is spent or the policy has settled."""
        elite = Elite(self._policy)
        elite.show(self._trace, [self._first])
        elite.learn(self._trace, Pretrained.samples)


def place(config: PlaceConfig) -> int:
    """Place a model with a trained policy, then print the table; Ctrl-C stops it early.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when the policy can't be read or does not fit.
    """
    check_torch_device(config.torch_device)
    check_counts(samples=config.samples or 0, finetune=config.finetune)
    card = read_card(config.policy) if _is_trained(config) else None
    config, samples = _completed(config, card)
    with Run(
        config,
        "place",
        1 + samples + config.finetune,
        shows_costs=card is None or card.sees_costs,
    ) as run:
        model = run.models[0]
        recorder = model.recorder
        recorder.evaluate_singles()
        found: dict[str, list[int]] = {}
        done = False
        with contextlib.suppress(KeyboardInterrupt), one_thread():
            policy = _policy_of(config, card, model)
            found[policy.first_row] = policy.first()
            recorder.evaluate(found[policy.first_row])
            if samples and (drawn := policy.best_of(samples)):
                found[f"best of {samples} samples"] = drawn
            if config.finetune:
                run.budget.limit = run.budget.num_distinct + config.finetune
                run.budget.num_requests = 0  # samples may repeat
                policy.finetune(config.finetune)
                found["fine-tuned, greedy"] = policy.greedy()
            done = True
        print(run.summary(interrupted=False))
        if done:
            run.check_valid()
        if done and config.rounds:
            best = list(recorder.best)
            rows = {name: one for name, one in found.items() if len(set(one)) > 1 or name[0] == "p"}
            print(finish(model, {**rows, "best found": best}))
    return 0 if done else 130


def _is_trained(config: PlaceConfig) -> bool:
    """Return whether the policy is that of a training run, and not pretrained weights."""
    return bool(config.policy) and not config.policy.endswith(SUFFIX)


def _policy_of(config: PlaceConfig, card: PolicyCard | None, model: ModelRun) -> Policy:
    if card is not None:
        return TrainedPolicy(config, card, model)
    return PretrainedOnModel(config, model)


def _completed(config: PlaceConfig, card: PolicyCard | None) -> tuple[PlaceConfig, int]:
    """Return the settings with the policy's devices, if none are given, and how many samples."""
    if card is None:
        if config.torch_device != "cpu":
            raise DevicePlacementError(
                f"Got --torch_device {config.torch_device}; pretrained weights run on the cpu."
            )
        load_weights(config.policy)  # fails before anything is written
        return dataclasses.replace(config, devices=config.devices or "auto"), config.samples or 0
    if not config.devices:
        check_file_devices(parse_devices(card.devices), config.policy)
    devices = config.devices or ",".join(card.devices)
    samples = SAMPLES if config.samples is None else config.samples
    return dataclasses.replace(config, devices=devices), samples
