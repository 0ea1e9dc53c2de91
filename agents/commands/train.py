"""Command `train`: train a preset on one or several models and keep the best placements."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList

from device_placement.agents.commands.config import TrainConfig
from device_placement.agents.presets import preset
from device_placement.agents.presets.overrides import parse_overrides
from device_placement.agents.runs.recording import BudgetError
from device_placement.agents.runs.resume import check_resumed_settings
from device_placement.agents.runs.run import Run
from device_placement.agents.runs.summary import finish
from device_placement.agents.training.algorithms import (
    check_overrides,
    check_torch_device,
    greedy_assignment,
)
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.checkpoints import (
    Checkpoints,
    check_interval,
    restore_progress,
)
from device_placement.agents.training.copies import (
    WithinBudget,
    algorithm_on_copies,
    num_copies,
)
from device_placement.agents.training.policy_file import PolicyCard, read_progress
from device_placement.agents.training.sampling import best_of_samples, check_counts
from device_placement.agents.training.weights import REPEAT, load_state
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.parts import COSTS
from device_placement.envs.repair.repairer import REPAIRS
from device_placement.envs.rewards import REWARDS
from device_placement.envs.untrusted import reading


def train(config: TrainConfig) -> int:
    """Train an agent and print the table; Ctrl-C stops early and keeps the results.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or no placement is valid.
    """
    check_resumed_settings(config)
    _check(config)
    with Run(config, config.preset, shows_costs=_shows_costs(config)) as run:
        algorithm, interrupted = _search(config, run)
        print(run.summary(interrupted))
        if not interrupted:
            run.check_valid()
        if config.rounds and not interrupted:
            for graph_id, model in enumerate(run.models):
                if len(run.models) > 1:
                    print(f"\n{model.name}\n")
                print(finish(model, _found(config, algorithm, run, graph_id)))
    return 130 if interrupted else 0


def _check(config: TrainConfig) -> None:
    """Check the options before anything is written."""
    preset(config.preset, config.formulation)
    check_overrides(config.preset, parse_overrides(config.override))
    if config.reward is not None:
        choose("reward", config.reward, REWARDS)
    check_counts(samples=config.samples)
    check_interval(config.checkpoint_s)
    check_torch_device(config.torch_device)
    if config.costs is not None:
        choose("costs", config.costs, COSTS)
    choose("repair", config.repair, dict.fromkeys(REPAIRS))
    if config.profile and config.evaluator == "openvino" and not _shows_costs(config):
        raise DevicePlacementError(
            f"Got --profile {config.profile}, but placements are measured and the agent sees no "
            "costs; add --costs profile to show it these, or --evaluator simulator to predict "
            "times by them."
        )


def _shows_costs(config: TrainConfig) -> bool:
    """Return whether the agent sees costs."""
    return COSTS[config.costs or preset(config.preset, config.formulation).costs]


def _search(config: TrainConfig, run: Run) -> tuple[BaseAlgorithm, bool]:
    """Learn until the budget is spent; return the algorithm, and whether Ctrl-C stopped it."""
    recorders = [one.recorder for one in run.models]
    path = run.folder / "policy.zip"
    resumes = config.resume and path.exists()
    if config.resume and not resumes:
        run.rewind()
    for recorder in recorders:
        recorder.evaluate_singles()
    card = _card_of(config, run)
    algorithm = _make(config, run, _copies(config, run, path if resumes else None))
    if resumes:
        _load(algorithm, run, path)
    checkpoints = Checkpoints(path, card, config.checkpoint_s, run.moment)
    callbacks = CallbackList([SearchCallback(recorders, run.names), checkpoints])
    most_groups = max(one.coarse.num_groups for one in recorders)
    limit = card.max_steps(most_groups, config.budget) - algorithm.num_timesteps
    interrupted = False
    try:
        if not run.budget.spent:
            algorithm.learn(limit, callback=callbacks, reset_num_timesteps=not resumes)
    except BudgetError:  # between the steps of several copies
        callbacks.on_training_end()
    except KeyboardInterrupt:
        interrupted = True
        checkpoints.keep()
    return algorithm, interrupted


def _copies(config: TrainConfig, run: Run, checkpoint: Path | None) -> int:
    """Return the number of environments: that of the checkpoint, which may be an earlier one's."""
    recorders = [one.recorder for one in run.models]
    most = num_copies(_card_of(config, run), recorders, config.budget, config.horizon)
    if checkpoint is None:
        return most
    with reading(checkpoint, "a checkpoint", REPEAT):
        saved = len(read_progress(checkpoint)["envs"])
    allowed = preset(config.preset, config.formulation).copies
    return saved if saved and allowed % saved == 0 else most


def _make(config: TrainConfig, run: Run, copies: int) -> BaseAlgorithm:
    return algorithm_on_copies(
        _card_of(config, run),
        [WithinBudget(one.recorder) for one in run.models],
        copies,
        horizon=config.horizon,
        reward=config.reward,
        seed=config.seed,
        torch_device=config.torch_device,
        tensorboard_log=str(run.folder / "tensorboard"),
        profile=config.profile,
    )


def _load(algorithm: BaseAlgorithm, run: Run, path: Path) -> None:
    """Load the algorithm, and rewind the run, to the last checkpoint."""
    progress = read_progress(path)
    load_state(algorithm, path)
    with reading(path, "a checkpoint", REPEAT):
        restore_progress(algorithm, progress)
        run.rewind(progress["run"])


def _card_of(config: TrainConfig, run: Run) -> PolicyCard:
    """Return the card that is saved with the policy."""
    overrides = parse_overrides(config.override)
    evaluators = [one.evaluator for one in run.models]
    card = PolicyCard.of(config.preset, config.formulation, evaluators, config.costs, **overrides)
    return dataclasses.replace(card, repair=config.repair)


def _found(
    config: TrainConfig, algorithm: BaseAlgorithm, run: Run, graph_id: int
) -> dict[str, list[int]]:
    """Return the placements of the final comparison; the policy's are outside the budget."""
    card = _card_of(config, run)
    evaluators = [one.evaluator for one in run.models]
    env = card.make_env(evaluators, config.horizon, config.reward, config.profile)
    found = {"best found": list(run.models[graph_id].recorder.best)}
    found["trained policy, greedy"] = greedy_assignment(algorithm, env, graph_id=graph_id)
    if config.samples:
        drawn = best_of_samples(
            algorithm, card, evaluators, graph_id, config.samples, config.profile
        )
        if drawn:
            found[f"trained policy, best of {config.samples}"] = drawn
    return found
