"""Command `place`: place an unseen model with a trained policy."""

from __future__ import annotations

import contextlib
import dataclasses

from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.commands.config import PlaceConfig
from device_placement.agents.runs.run import ModelRun, Run
from device_placement.agents.runs.summary import finish
from device_placement.agents.training.algorithms import check_torch_device, greedy_assignment
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.checkpoints import Checkpoints
from device_placement.agents.training.policy_file import PolicyCard, load_policy, read_card
from device_placement.agents.training.sampling import best_of_samples, check_counts, last_horizon
from device_placement.envs.devices import parse_devices
from device_placement.envs.untrusted import check_file_devices


def place(config: PlaceConfig) -> int:
    """Place a model with a trained policy, then print the table; Ctrl-C stops it early.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when the policy can't be read or does not fit.
    """
    card = read_card(config.policy)
    config = _completed(config, card)
    extra = 1 + config.samples + config.finetune
    with Run(config, "place", extra, shows_costs=card.sees_costs) as run:
        model = run.models[0]
        recorder = model.recorder
        recorder.evaluate_singles()
        env = card.make_env(recorder, profile=config.profile)
        algorithm = load_policy(config.policy, env, config.seed, config.torch_device)
        found: dict[str, list[int]] = {}
        done = False
        with contextlib.suppress(KeyboardInterrupt):
            found["policy, greedy"] = _greedy(algorithm, card, model)
            recorder.evaluate(found["policy, greedy"])
            if drawn := best_of_samples(
                algorithm, card, [recorder], 0, config.samples, config.profile
            ):
                found[f"best of {config.samples} samples"] = drawn
            if config.finetune:
                run.budget.limit = run.budget.num_distinct + config.finetune
                run.budget.num_requests = 0  # samples may repeat
                _finetune(algorithm, card, model, config.finetune)
                found["fine-tuned, greedy"] = _greedy(algorithm, card, model)
            done = True
        print(run.summary(interrupted=False))
        if done:
            run.check_valid()
        if done and config.rounds:
            best = list(recorder.best)
            rows = {name: one for name, one in found.items() if len(set(one)) > 1 or name[0] == "p"}
            print(finish(model, {**rows, "best found": best}))
    return 0 if done else 130


def _completed(config: PlaceConfig, card: PolicyCard) -> PlaceConfig:
    """Return the settings with the policy's devices, if none are given."""
    check_torch_device(config.torch_device)
    check_counts(samples=config.samples, finetune=config.finetune)
    if not config.devices:
        check_file_devices(parse_devices(card.devices), config.policy)
    return dataclasses.replace(config, devices=config.devices or ",".join(card.devices))


def _greedy(algorithm: BaseAlgorithm, card: PolicyCard, model: ModelRun) -> list[int]:
    """Return the policy's greedy placement; its evaluations are outside the budget."""
    horizon, profile = last_horizon(card), model.config.profile
    return greedy_assignment(
        algorithm, card.make_env(model.evaluator, horizon=horizon, profile=profile)
    )


def _finetune(algorithm: BaseAlgorithm, card: PolicyCard, model: ModelRun, number: int) -> None:
    """Train the policy on further placements."""
    checkpoints = Checkpoints(model.folder / "policy.zip", card)
    limit = card.max_steps(model.evaluator.coarse.num_groups, number)
    algorithm.tensorboard_log = str(model.folder / "tensorboard")
    algorithm.learn(limit, callback=[SearchCallback([model.recorder]), checkpoints])
