"""Speed of the environment: placements per minute, and its own share of a step.

Run it with::

    python -m device_placement.benchmarks.speed

With ``--simulator`` it times the simulator instead: placements and steps per second; with
``--training`` the agents that train on it; with ``--problems`` many problems at once.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from device_placement.benchmarks import problem_speed, simulator_speed, training_speed
from device_placement.benchmarks.study import LiveTable, ModelsConfig, random_steps, run, timed
from device_placement.envs.measuring.timing import median_interval


@dataclass(frozen=True)
class SpeedConfig(ModelsConfig):
    """Options of the study."""

    devices: str = "auto"
    """Devices, comma-separated, as for the commands."""
    steps: int = 30
    """Steps of the environment, each with a random placement."""
    seed: int = 0
    """Seed of all random choices."""
    simulator: bool = False
    """Time the simulator instead of OpenVINO; ignores models, devices and steps."""
    training: bool = False
    """Time the agents that train on the simulator; ignores all other options."""
    problems: bool = False
    """Time the vector environment over generated problems; ignores models, devices and steps."""
    data: str = ""
    """Folder of the dnn-partitioning files for --simulator; default: random graphs."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of each step, of its compiling and of its running, (num_steps,) each."""

    step_s: list[float]
    compile_s: list[float]
    run_s: list[float]

    def own_shares(self) -> list[float]:
        """Return the share of each step that is not compiling, running or releasing the model."""
        columns = zip(self.step_s, self.compile_s, self.run_s, strict=True)
        return [1.0 - (compile_s + run_s) / step_s for step_s, compile_s, run_s in columns]


def time_steps(config: SpeedConfig, model: str) -> StepTimes:
    """Time the steps of one model's environment, and return the times."""
    times = StepTimes([], [], [])
    with random_steps(model, config.devices, config.steps, config.seed) as (env, actions):
        for action in actions:
            times.step_s.append(timed(env.step, action)[1])
            evaluation = env.evaluator.evaluate(action.tolist())  # known; nothing runs again
            times.compile_s.append(evaluation.compile_s)
            times.run_s.append(evaluation.run_s)
    return times


def main(config: SpeedConfig) -> int:
    """Print one line per model, or the figures of the simulator."""
    if config.simulator:
        return simulator_speed.run(config.data, config.seed)
    if config.training:
        return training_speed.run()
    if config.problems:
        return problem_speed.run(config.seed)
    columns = "model:<14", "placements/min:>15.1f", "step ms:>9.0f", "compile ms:>12.0f"
    table = LiveTable(*columns, "run ms:>8.0f", "  own share (95 % interval):<1")
    for model in config.models:
        times = time_steps(config, model)
        shares = times.own_shares()
        low, high = median_interval(shares)
        table.add(
            model,
            60 * len(times.step_s) / sum(times.step_s),
            1e3 * statistics.median(times.step_s),
            1e3 * statistics.median(times.compile_s),
            1e3 * statistics.median(times.run_s),
            f"  {100 * statistics.median(shares):.2f} % ({100 * low:.2f} - {100 * high:.2f})",
        )
    return 0


if __name__ == "__main__":
    run(main, SpeedConfig, __doc__)
