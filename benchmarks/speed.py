"""How fast is the environment: placements per minute, and what it costs beside OpenVINO.

Run it with::

    python -m device_placement.benchmarks.speed

With ``--simulator`` it times the simulator instead: placements and steps a second; with
``--training`` an agent that trains on it.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np
import tyro

from device_placement.agents.placers.baselines import random_assignment
from device_placement.benchmarks import simulator_speed, training_speed
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.timing import median_interval


@dataclass(frozen=True)
class SpeedConfig:
    """What to time."""

    models: tuple[str, ...] = ("resnet50", "inception_v3", "bert_base")
    """Models, as load_model takes them."""
    devices: str = "auto"
    """Devices, as everywhere."""
    steps: int = 30
    """Steps of the environment, each with a random placement."""
    seed: int = 0
    """Seed of the placements."""
    simulator: bool = False
    """Time the simulator instead of OpenVINO; models, devices and steps are then not used."""
    training: bool = False
    """Time an agent that trains on the simulator; all but this is then not used."""
    data: str = ""
    """For the simulator, the folder of the dnn-partitioning files; random graphs without."""


@dataclass(frozen=True)
class StepTimes:
    """Where the time of each step went, (num_steps,) seconds each."""

    step_s: list[float]
    compile_s: list[float]
    run_s: list[float]

    def own_shares(self) -> list[float]:
        """The share of each step that is neither compiling, running nor releasing the model."""
        columns = zip(self.step_s, self.compile_s, self.run_s, strict=True)
        return [1.0 - (compile_s + run_s) / step_s for step_s, compile_s, run_s in columns]


def time_steps(config: SpeedConfig, model: str) -> StepTimes:
    """Time the steps of one model's environment."""
    env = DevicePlacementEnv(model, config.devices, horizon=config.steps + 1, store=None)
    generator = np.random.default_rng(config.seed)
    env.reset(seed=config.seed)
    times = StepTimes([], [], [])
    for _ in range(config.steps):
        action = np.array(random_assignment(env.coarse, generator))
        start = time.perf_counter()
        env.step(action)
        times.step_s.append(time.perf_counter() - start)
        evaluation = _last_evaluation(env, action)
        times.compile_s.append(evaluation.compile_s)
        times.run_s.append(evaluation.run_s)
    return times


def _last_evaluation(env: DevicePlacementEnv, action: np.ndarray) -> Evaluation:
    """What the evaluator remembers of a placement; nothing is run again."""
    return env.evaluator.evaluate(action.tolist())


def main(config: SpeedConfig) -> int:
    """Print a line a model, or the figures of the simulator."""
    if config.simulator:
        return simulator_speed.run(config.data, config.seed)
    if config.training:
        return training_speed.run()
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config.steps} random placements each, devices {config.devices}\n")
    print("model          placements/min  step ms  compile ms  run ms  own share (95 % interval)")
    for model in config.models:
        times = time_steps(config, model)
        shares = times.own_shares()
        low, high = median_interval(shares)
        print(
            f"{model:<14}{60 * len(times.step_s) / sum(times.step_s):>15.1f}"
            f"{1e3 * statistics.median(times.step_s):>9.0f}"
            f"{1e3 * statistics.median(times.compile_s):>12.0f}"
            f"{1e3 * statistics.median(times.run_s):>8.0f}"
            f"  {100 * statistics.median(shares):.2f} % ({100 * low:.2f} - {100 * high:.2f})",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(SpeedConfig, description=__doc__)))
