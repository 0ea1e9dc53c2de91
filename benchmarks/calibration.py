"""How well does a measured profile predict placements that it has never seen?

For each model it measures a profile, then further random placements, and compares their
measured times with those that the simulator predicts from the profile. Run it with::

    python -m device_placement.benchmarks.calibration
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass

import numpy as np
import tyro

from device_placement.agents.commands.profile import describe_profile
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.profiling.fit import Agreement
from device_placement.envs.profiling.measured_profile import WHOLE, draw_placements, profile_with
from device_placement.envs.rendering.text import align
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.simulator import SimulatedEvaluator


@dataclass(frozen=True)
class CalibrationConfig:
    """What to profile and to predict."""

    models: tuple[str, ...] = ("resnet50", "inception_v3", "bert_base")
    """Models, as load_model takes them."""
    devices: str = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"
    """Devices, as everywhere."""
    placements: int = 60
    """Random placements that a profile is measured with."""
    held_out: int = 40
    """Further random placements that it has to predict."""
    min_correlation: float = 0.9
    """Rank correlation (Spearman) that a profile must reach."""
    max_error: float = 0.08
    """Mean relative error that it may have."""
    seed: int = 0
    """Seed of the profile's placements; the held-out ones are drawn with the next one."""
    store: str | None = "auto"
    """Where evaluations are remembered, as everywhere."""


def predict_model(model: str, config: CalibrationConfig) -> tuple[HardwareProfile, Agreement]:
    """A model's profile, and how well it predicts placements drawn afterwards."""
    evaluator = make_evaluator(model, config.devices, store=config.store, **WHOLE)
    assert isinstance(evaluator, OpenVINOEvaluator)
    with contextlib.closing(evaluator):
        profile = profile_with(evaluator, config.placements, config.seed)
        known = draw_placements(
            evaluator.coarse, config.placements, np.random.default_rng(config.seed)
        )
        further = draw_placements(
            evaluator.coarse,
            config.placements + config.held_out,
            np.random.default_rng(config.seed + 1),
        )
        chosen = [one for one in further if one not in known][: config.held_out]
        measured_s = np.array([evaluator.evaluate(one).time_s for one in chosen])
    simulator = SimulatedEvaluator(evaluator.coarse, config.devices, profile=profile)
    ran = ~np.isnan(measured_s)
    predicted_s = simulator.evaluate_many(np.array(chosen))
    return profile, Agreement.between(predicted_s[ran], measured_s[ran])


def main(config: CalibrationConfig) -> int:
    """Print each profile and a line a model; the exit status is 1 when one misses the mark."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(config, flush=True)
    rows = [("model", "placements", "mean error", "rank correlation", "s")]
    holds = True
    for model in config.models:
        start = time.perf_counter()
        profile, found = predict_model(model, config)
        numbers = f"{found.mean_error:.2%}", f"{found.rank_correlation:.3f}"
        spent = f"{time.perf_counter() - start:.0f}"
        rows.append((profile.model, str(found.num_placements), *numbers, spent))
        print(f"\n{describe_profile(profile)}", flush=True)
        reached = found.rank_correlation >= config.min_correlation
        holds = holds and reached and found.mean_error <= config.max_error
    print("\nPredicted and measured, of placements drawn afterwards")
    print("\n".join(align(rows, right=(1, 2, 3, 4))))
    print("Each model reaches the mark." if holds else "Not every model reaches the mark.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CalibrationConfig, description=__doc__)))
