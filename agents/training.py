"""Train an off-the-shelf agent on one model and keep the best placement it finds."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from device_placement.agents.algorithms import (
    check_overrides,
    check_torch_device,
    greedy_assignment,
    load_algorithm,
    make_algorithm,
)
from device_placement.agents.presets import preset
from device_placement.agents.recording import REQUESTS_PER_BUDGET, RecordingEvaluator
from device_placement.agents.report import finish
from device_placement.agents.runs import Run, SearchConfig, resumed
from device_placement.agents.saved import PolicyCard, save_policy
from device_placement.envs.errors import DevicePlacementError, choose
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.rewards import REWARDS


@dataclass(frozen=True)
class TrainConfig(SearchConfig):
    """What a training is told."""

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
    torch_device: str = "cpu"
    """Where the policy's network runs: cpu, cuda, ..."""


def train(config: TrainConfig) -> int:
    """Run a training to its table; Ctrl-C ends the search early and keeps what it found.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.
    """
    config = resumed(config)
    preset(config.preset, config.formulation)
    check_overrides(config.preset, parse_overrides(config.override))
    if config.reward is not None:
        choose("reward", config.reward, REWARDS)
    check_torch_device(config.torch_device)
    with Run(config, config.preset) as run:
        algorithm, interrupted = _search(config, run)
        print(run.summary(interrupted))
        if config.rounds and not interrupted:
            found = {"best found": list(run.recorder.best)}
            found["trained policy, greedy"] = _greedy(config, algorithm, run)
            print(finish(run, found))
    return 130 if interrupted else 0


def _search(config: TrainConfig, run: Run) -> tuple[BaseAlgorithm, bool]:
    """Learn until the budget is spent; the algorithm, and whether Ctrl-C ended it."""
    checkpoint = run.folder / "policy.zip"
    run.recorder.evaluate_singles()
    card = card_of(config, run.evaluator)
    env = card.make_env(run.recorder, config.horizon, config.reward)
    if config.resume and checkpoint.exists():
        algorithm = load_algorithm(config.preset, checkpoint, env, config.torch_device)
    else:
        algorithm = make_algorithm(
            config.preset,
            env,
            formulation=config.formulation,
            seed=config.seed,
            torch_device=config.torch_device,
            tensorboard_log=str(run.folder / "tensorboard"),
            overrides=parse_overrides(config.override),
        )
    callback = SearchCallback(run.recorder, checkpoint, card)
    steps = run.evaluator.coarse.num_groups if card.formulation == "construct" else 1
    limit = REQUESTS_PER_BUDGET * config.budget * steps
    interrupted = False
    try:
        if not run.recorder.spent:
            algorithm.learn(limit, callback=callback, reset_num_timesteps=not config.resume)
    except KeyboardInterrupt:
        interrupted = True
    save_policy(algorithm, checkpoint, card)
    return algorithm, interrupted


def card_of(config: TrainConfig, evaluator: Evaluator) -> PolicyCard:
    """What the file of the policy says of it."""
    overrides = parse_overrides(config.override)
    return PolicyCard.of(config.preset, config.formulation, [evaluator], **overrides)


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


class SearchCallback(BaseCallback):
    """Ends the learning when the budget is spent; checkpoints and logs on the way.

    Args:
        recorder: keeps the budget.
        checkpoint: file that the weights are saved to after each update, if there is one.
        card: goes into that file.
    """

    def __init__(
        self,
        recorder: RecordingEvaluator,
        checkpoint: Path | None = None,
        card: PolicyCard | None = None,
    ) -> None:
        super().__init__()
        self._recorder = recorder
        self._checkpoint, self._card = checkpoint, card

    def _on_rollout_start(self) -> None:
        if self._checkpoint is not None and self._card is not None:
            save_policy(self.model, self._checkpoint, self._card)

    def _on_step(self) -> bool:
        info: dict[str, Any] = self.locals["infos"][0]
        if not math.isnan(info["time_s"]):
            self.logger.record_mean("placement/time_ms", 1e3 * info["time_s"])
            self.logger.record_mean("placement/num_subgraphs", info["num_subgraphs"])
        self.logger.record("placement/best_ms", 1e3 * self._recorder.best_s)
        self.logger.record("placement/distinct", self._recorder.num_distinct)
        learned_groups = getattr(self.model.policy.features_extractor, "num_groups", None)
        if learned_groups is not None:
            self.logger.record_mean("placement/learned_groups", learned_groups)
        return not self._recorder.spent

    def _on_training_end(self) -> None:
        self.logger.dump(self.num_timesteps)


def _greedy(config: TrainConfig, algorithm: BaseAlgorithm, run: Run) -> list[int]:
    """What the trained policy proposes greedily; its episode is not part of the budget."""
    card = card_of(config, run.evaluator)
    env = card.make_env(run.evaluator, config.horizon, config.reward)
    return greedy_assignment(algorithm, env)
