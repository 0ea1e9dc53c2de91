"""PPO with action masks in RLlib.

Run it: python rllib_ppo.py --iterations 10
"""

from __future__ import annotations

import argparse
import math

import gymnasium as gym
import numpy as np
import ray
from gymnasium import spaces
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.examples.rl_modules.classes.action_masking_rlm import ActionMaskingTorchRLModule

PROBLEM = {
    "model": "inception_v3",
    "hardware": "laptop",
    "schedule": "concurrent",
    "max_groups": 24,
}


class MaskedPlacement(gym.ObservationWrapper):
    """The environment as RLlib's masking module takes it: ``observations`` and ``action_mask``."""

    def __init__(self, config: dict) -> None:
        name = "device_placement.envs:SimulatedDevicePlacementConstruct-v0"
        super().__init__(gym.make(name, costs="profile", reward="log_speedup", **config))
        inner = self.env.observation_space["partial_schedule"]
        self.observation_space = spaces.Dict(
            {
                "action_mask": spaces.Box(0.0, 1.0, (int(self.action_space.n),), np.float32),
                "observations": spaces.flatten_space(inner),
            }
        )

    def observation(self, observation: dict) -> dict:
        """Return the two parts of an observation that the agent needs."""
        mask = self.get_wrapper_attr("action_masks")()
        return {
            "action_mask": mask.astype(np.float32),
            "observations": observation["partial_schedule"].flatten(),
        }


def train(iterations: int, steps: int = 1024, copies: int = 8) -> float:
    """Train in this process, print a line per iteration, and return the last mean speed-up."""
    config = (
        PPOConfig()
        .environment(MaskedPlacement, env_config=PROBLEM)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=copies)
        .learners(num_learners=0)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ActionMaskingTorchRLModule,
                model_config={"head_fcnet_hiddens": [64, 64], "head_fcnet_activation": "tanh"},
            )
        )
        .training(
            gamma=1.0,
            lr=1e-3,
            entropy_coeff=0.005,
            num_epochs=4,
            train_batch_size_per_learner=steps,
            minibatch_size=min(256, steps),
        )
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    mean = math.nan
    for iteration in range(iterations):
        result = algorithm.train()
        mean = math.exp(result["env_runners"]["episode_return_mean"])
        print(f"iteration {iteration}: geometric mean of the speed-ups {mean:.3f}")
    algorithm.stop()
    return mean


def main() -> None:
    """Train on one model, and print how fast the policy's placements are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=10)
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        mean = train(parser.parse_args().iterations)
        print(f"geometric mean of the speed-ups over the first device: {mean:.3f}")
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
