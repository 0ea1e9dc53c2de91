"""Command `train`: train a preset on one or several models and keep the best placements."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from device_placement.agents.presets import preset
from device_placement.agents.runs.config import SearchConfig, check_going_on
from device_placement.agents.runs.run import Run
from device_placement.agents.runs.summary import finish
from device_placement.agents.training.algorithms import (
    Env,
    check_overrides,
    check_torch_device,
    greedy_assignment,
    load_algorithm,
    make_algorithm,
)
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.checkpoints import (
    Checkpoints,
    check_interval,
    restore_progress,
)
from device_placement.agents.training.policy_file import PolicyCard, read_progress
from device_placement.agents.training.sampling import best_of_samples, check_counts
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.rewards import REWARDS


@dataclass(frozen=True)
class TrainConfig(SearchConfig):
    """What a training is told."""

    model: str = "resnet50"
    """A bundled model (resnet50, inception_v3, bert_base, diamond) or the path of a model file; of
    several, separated by commas, one is drawn for each episode, and they share the budget."""
    preset: str = "ppo"
    """ppo, a2c, maskable_ppo, nodewise_ppo, nodewise_a2c, hsdag, hsdag_ppo, placeto, gdp or rnn."""
    override: str = ""
    """Settings that differ from the preset: learning_rate=1e-3;extractor.hidden=128;..."""
    formulation: str | None = None
    """How an episode builds a placement: assign, construct or refine; the preset's by default."""
    horizon: int | None = None
    """Steps of an episode in assign and refine; the preset's by default."""
    reward: str | None = None
    """Name of the reward; the preset's by default."""
    samples: int = 0
    """Placements to draw from the trained policy, besides its greedy one, for the comparison at the
    end; they are not part of the budget."""
    checkpoint_s: float = 10.0
    """Seconds from one checkpoint to the next, at least; they are written between two updates."""
    torch_device: str = "cpu"
    """Where the policy's network runs: cpu, cuda, ..."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models to train on; a path that has a comma in it is one model."""
        if Path(self.model).exists():
            return (self.model,)
        names = tuple(filter(None, (part.strip() for part in self.model.split(","))))
        return names or (self.model,)


def train(config: TrainConfig) -> int:
    """Run a training to its table; Ctrl-C ends the search early and keeps what it found.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or no placement is valid.
    """
    check_going_on(config)
    _check(config)
    with Run(config, config.preset) as run:
        algorithm, interrupted = _search(config, run)
        print(run.summary(interrupted))
        if config.rounds and not interrupted:
            for graph_id, model in enumerate(run.models):
                if len(run.models) > 1:
                    print(f"\n{model.name}\n")
                print(finish(model, _found(config, algorithm, run, graph_id)))
    return 130 if interrupted else 0


def _check(config: TrainConfig) -> None:
    """Refuse what is wrong before anything is begun."""
    preset(config.preset, config.formulation)
    check_overrides(config.preset, parse_overrides(config.override))
    if config.reward is not None:
        choose("reward", config.reward, REWARDS)
    check_counts(samples=config.samples)
    check_interval(config.checkpoint_s)
    check_torch_device(config.torch_device)


def _search(config: TrainConfig, run: Run) -> tuple[BaseAlgorithm, bool]:
    """Learn until the budget is spent; the algorithm, and whether Ctrl-C ended it."""
    recorders = [one.recorder for one in run.models]
    path = run.folder / "policy.zip"
    resumes = config.resume and path.exists()
    if config.resume and not resumes:
        run.rewind()
    for recorder in recorders:
        recorder.evaluate_singles()
    card = _card_of(config, run)
    env = card.make_env(recorders, config.horizon, config.reward)
    algorithm = _load(config, run, env, path) if resumes else _make(config, run, env)
    checkpoints = Checkpoints(path, card, config.checkpoint_s, run.moment)
    callbacks = [SearchCallback(recorders, run.names), checkpoints]
    limit = card.max_steps(env.layout.max_groups, config.budget) - algorithm.num_timesteps
    interrupted = False
    try:
        if not run.budget.spent:
            algorithm.learn(limit, callback=callbacks, reset_num_timesteps=not resumes)
    except KeyboardInterrupt:
        interrupted = True
        checkpoints.keep()
    return algorithm, interrupted


def _make(config: TrainConfig, run: Run, env: Env) -> BaseAlgorithm:
    return make_algorithm(
        config.preset,
        env,
        formulation=config.formulation,
        seed=config.seed,
        torch_device=config.torch_device,
        tensorboard_log=str(run.folder / "tensorboard"),
        overrides=parse_overrides(config.override),
    )


def _load(config: TrainConfig, run: Run, env: Env, path: Path) -> BaseAlgorithm:
    """The algorithm and the run at the moment of the last checkpoint."""
    progress = read_progress(path)
    algorithm = load_algorithm(config.preset, path, env, config.torch_device)
    algorithm.tensorboard_log = str(run.folder / "tensorboard")
    restore_progress(algorithm, progress)
    run.rewind(progress["run"])
    return algorithm


def _card_of(config: TrainConfig, run: Run) -> PolicyCard:
    """What the file of the policy says of it."""
    overrides = parse_overrides(config.override)
    evaluators = [one.evaluator for one in run.models]
    return PolicyCard.of(config.preset, config.formulation, evaluators, **overrides)


def _found(
    config: TrainConfig, algorithm: BaseAlgorithm, run: Run, graph_id: int
) -> dict[str, list[int]]:
    """What is compared at the end, of one model; the policy's episodes are not in the budget."""
    card = _card_of(config, run)
    evaluators = [one.evaluator for one in run.models]
    env = card.make_env(evaluators, config.horizon, config.reward)
    found = {"best found": list(run.models[graph_id].recorder.best)}
    found["trained policy, greedy"] = greedy_assignment(algorithm, env, graph_id=graph_id)
    if config.samples:
        drawn = best_of_samples(algorithm, card, evaluators, graph_id, config.samples)
        if drawn:
            found[f"trained policy, best of {config.samples}"] = drawn
    return found


def parse_overrides(text: str) -> dict[str, Any]:
    """Settings by name, of NAME=VALUE;NAME=VALUE.

    Raises:
        DevicePlacementError: when it is not written so.

    >>> parse_overrides("learning_rate=1e-3;extractor.conv=gat")
    {'learning_rate': 0.001, 'extractor.conv': 'gat'}
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(";")):
        name, sign, value = (one.strip() for one in part.partition("="))
        if not (sign and name and value):
            raise DevicePlacementError(
                f"Got {part!r} as a setting; write them as NAME=VALUE;NAME=VALUE."
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):  # a word
            found[name] = value
    return found
