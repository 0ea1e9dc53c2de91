"""Training of a preset that is logged to Weights & Biases, by default offline.

Run it: python wandb_run.py --steps 640, and upload the run later: wandb sync FOLDER
"""

from __future__ import annotations

import argparse

import gymnasium as gym
import wandb
from stable_baselines3.common.callbacks import BaseCallback

from device_placement.agents import make_algorithm

SETTINGS = {
    "model": "inception_v3",
    "hardware": "laptop",
    "schedule": "concurrent",
    "max_groups": 24,
}


class LogPlacements(BaseCallback):
    """Log each evaluated placement, and which one is the best so far."""

    def __init__(self, run: wandb.Run) -> None:
        super().__init__()
        self.run = run

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if info["valid"]:
                self.run.log(
                    {
                        "time_ms": 1e3 * info["time_s"],
                        "best_ms": 1e3 * info["best_time_s"],
                        "speedup": info["speedup"],
                        "subgraphs": info["num_subgraphs"],
                    },
                    step=self.num_timesteps,
                )
        return True


def train(run: wandb.Run, preset: str, steps: int) -> float:
    """Train, log, and return the best time in ms."""
    env = gym.make("device_placement.envs:SimulatedDevicePlacement-v0", **SETTINGS)
    algorithm = make_algorithm(preset, env, seed=0)
    algorithm.learn(steps, callback=LogPlacements(run))
    _, info = env.reset()
    best = env.unwrapped.placement()
    run.summary["best_ms"] = 1e3 * info["best_time_s"]
    run.summary["best_devices"] = list(info["best_placement"])
    path = f"{run.dir}/best_placement.json"
    best.save(path)  # a file in the folder of the run is uploaded with it
    return 1e3 * info["best_time_s"]


def main() -> None:
    """Train a preset, and print the best time and the folder of the run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="ppo")
    parser.add_argument("--steps", type=int, default=640)
    parser.add_argument("--mode", default="offline", choices=["offline", "online", "disabled"])
    options = parser.parse_args()
    config = {**SETTINGS, "preset": options.preset, "steps": options.steps}
    with wandb.init(project="device-placement", config=config, mode=options.mode) as run:
        best_ms = train(run, options.preset, options.steps)
        print(f"best placement: {best_ms:.3f} ms; run in {run.dir}")


if __name__ == "__main__":
    main()
