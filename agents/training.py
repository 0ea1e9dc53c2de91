"""Train an off-the-shelf agent on one model and keep the best placement it finds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from device_placement.agents.algorithms import (
    ALGORITHMS,
    check_torch_device,
    greedy_assignment,
    load_algorithm,
    make_algorithm,
)
from device_placement.agents.presets import preset
from device_placement.agents.recording import REQUESTS_PER_BUDGET, RecordingEvaluator
from device_placement.agents.report import finish
from device_placement.agents.runs import Run, SearchConfig, resumed
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import choose
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.observation import FORMULATIONS
from device_placement.envs.rewards import REWARDS


@dataclass(frozen=True)
class TrainConfig(SearchConfig):
    """What a training is told."""

    algo: str = "ppo"
    """ppo, a2c or maskable_ppo."""
    formulation: str = "assign"
    """How an episode builds a placement: assign, construct or refine."""
    horizon: int = 20
    """Steps of an episode in assign and refine."""
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
    choose("algorithm", config.algo, ALGORITHMS)
    choose("formulation", config.formulation, dict.fromkeys(FORMULATIONS))
    if config.reward is not None:
        choose("reward", config.reward, REWARDS)
    check_torch_device(config.torch_device)
    with Run(config, config.algo) as run:
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
    env = make_env(config, run.recorder)
    if config.resume and checkpoint.exists():
        algorithm = load_algorithm(config.algo, checkpoint, env, config.torch_device)
    else:
        algorithm = make_algorithm(
            config.algo,
            env,
            formulation=config.formulation,
            seed=config.seed,
            torch_device=config.torch_device,
            tensorboard_log=str(run.folder / "tensorboard"),
        )
    callback = SearchCallback(run.recorder, checkpoint)
    steps = run.evaluator.coarse.num_groups if config.formulation == "construct" else 1
    limit = REQUESTS_PER_BUDGET * config.budget * steps
    interrupted = False
    try:
        if not run.recorder.spent:
            algorithm.learn(limit, callback=callback, reset_num_timesteps=not config.resume)
    except KeyboardInterrupt:
        interrupted = True
    save_policy(algorithm, checkpoint)
    return algorithm, interrupted


def make_env(config: TrainConfig, evaluator: Evaluator) -> DevicePlacementEnv:
    """The environment that a training was told to use."""
    reward = config.reward or str(preset(config.algo, config.formulation)["reward"])
    return DevicePlacementEnv(
        evaluator=evaluator,
        formulation=config.formulation,
        horizon=config.horizon,
        reward=reward,
    )


def save_policy(algorithm: BaseAlgorithm, path: Path) -> None:
    """Save the weights, replacing the file in one step."""
    draft = path.with_name(f".{path.stem}.draft.zip")
    algorithm.save(draft)
    draft.replace(path)


class SearchCallback(BaseCallback):
    """Ends the learning when the budget is spent; checkpoints and logs on the way.

    Args:
        recorder: keeps the budget.
        checkpoint: file that the weights are saved to after each update, if there is one.
    """

    def __init__(self, recorder: RecordingEvaluator, checkpoint: Path | None = None) -> None:
        super().__init__()
        self._recorder = recorder
        self._checkpoint = checkpoint

    def _on_rollout_start(self) -> None:
        if self._checkpoint is not None:
            save_policy(self.model, self._checkpoint)

    def _on_step(self) -> bool:
        info: dict[str, Any] = self.locals["infos"][0]
        if not math.isnan(info["time_s"]):
            self.logger.record_mean("placement/time_ms", 1e3 * info["time_s"])
            self.logger.record_mean("placement/num_subgraphs", info["num_subgraphs"])
        self.logger.record("placement/best_ms", 1e3 * self._recorder.best_s)
        self.logger.record("placement/distinct", self._recorder.num_distinct)
        return not self._recorder.spent

    def _on_training_end(self) -> None:
        self.logger.dump(self.num_timesteps)


def _greedy(config: TrainConfig, algorithm: BaseAlgorithm, run: Run) -> list[int]:
    """What the trained policy proposes greedily; its episode is not part of the budget."""
    return greedy_assignment(algorithm, make_env(config, run.evaluator))
