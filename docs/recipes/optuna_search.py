"""Search for a preset's settings with Optuna.

Run it: python optuna_search.py --trials 20
"""

from __future__ import annotations

import argparse
import statistics

import gymnasium as gym
import optuna

from device_placement.agents import make_algorithm

PRESET = "ppo"
SEEDS = (0, 1)  # one seed may be lucky


def best_speedup(overrides: dict, steps: int, seed: int) -> float:
    """Train the preset with other settings, and return the best placement's speed-up."""
    env = gym.make(
        "device_placement.envs:SimulatedDevicePlacement-v0",
        model="inception_v3",
        hardware="laptop",
        schedule="concurrent",
        max_groups=24,
    )
    algorithm = make_algorithm(PRESET, env, seed=seed, overrides=overrides)
    algorithm.learn(steps)
    _, info = env.reset()
    reference_s = env.unwrapped.baseline().reference_s
    return reference_s / info["best_time_s"]


def search(trials: int, steps: int) -> optuna.Study:
    """Try settings, and return the study; the objective is the mean of the seeds."""

    def objective(trial: optuna.Trial) -> float:
        overrides = {
            "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
            "ent_coef": trial.suggest_float("ent_coef", 1e-4, 1e-1, log=True),
            "extractor.hidden": trial.suggest_categorical("extractor.hidden", [32, 64, 128]),
        }
        return statistics.mean(best_speedup(overrides, steps, seed) for seed in SEEDS)

    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    usual = statistics.mean(best_speedup({}, steps, seed) for seed in SEEDS)
    print(f"the preset as it is: speed-up {usual:.3f}")
    study.optimize(objective, n_trials=trials)
    return study


def main() -> None:
    """Search, and print the best settings as `device-placement train --override` takes them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=320)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = search(options.trials, options.steps)
    settings = ";".join(f"{name}={value}" for name, value in study.best_params.items())
    print(f"best of {len(study.trials)} trials: speed-up {study.best_value:.3f} with")
    print(f'--override "{settings}"')


if __name__ == "__main__":
    main()
