"""Compare the times of placements with what a measured profile predicts.

For each model the study measures a profile, then further random placements, and compares their
times with those that the simulator computes from the profile. Run it with::

    python -m device_placement.benchmarks.calibration
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np

from device_placement.agents.commands.profile import describe_profile
from device_placement.benchmarks.study import TWO_PRECISIONS, ModelsConfig, print_table, run, timed
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.config import MeasureConfig, make_measure_config
from device_placement.envs.profiling.fit import Agreement
from device_placement.envs.profiling.measured_profile import WHOLE, profile_with
from device_placement.envs.profiling.random_placements import draw_placements
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.simulator import SimulatedEvaluator


@dataclass(frozen=True)
class CalibrationConfig(ModelsConfig):
    """Options of the study."""

    devices: str = TWO_PRECISIONS
    """Devices, comma-separated, as for the commands."""
    executor: str = "hetero"
    """How placements run: hetero or dataflow; the latter needs devices of their own, such as
    CPU_0:CORES=0,CPU_1:CORES=1."""
    max_groups: int | None = None
    """Merge groups until at most this many remain."""
    placements: int = 60
    """Random placements to measure a profile with."""
    held_out: int = 40
    """Further random placements, whose times the profile must predict."""
    min_correlation: float = 0.9
    """Least rank correlation (Spearman) of predicted and measured times."""
    max_error: float = 0.08
    """Largest mean relative error of the predicted times."""
    seed: int = 0
    """Seed of the profile's placements; the held-out ones are drawn with the next one."""
    store: str | None = "auto"
    """Database file of earlier evaluations; auto: in the user's cache folder, None: no store."""


def predict_model(model: str, config: CalibrationConfig) -> tuple[HardwareProfile, Agreement]:
    """Measure a model's profile, and how well it predicts placements drawn afterwards."""
    evaluator = make_evaluator(
        model,
        config.devices,
        store=config.store,
        max_groups=config.max_groups,
        measuring=make_measure_config(MeasureConfig(executor=config.executor), **WHOLE),
    )
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
    schedule = profile.provenance["schedule"]
    simulator = SimulatedEvaluator(
        evaluator.coarse, config.devices, profile=profile, schedule=schedule
    )
    ran = ~np.isnan(measured_s)
    predicted_s = simulator.evaluate_many(np.array(chosen))
    return profile, Agreement.between(predicted_s[ran], measured_s[ran])


def main(config: CalibrationConfig) -> int:
    """Print each profile and one line per model; return 1 when one misses the limits."""
    rows = [("model", "placements", "mean error", "rank correlation", "s")]
    holds = True
    for model in config.models:
        (profile, found), seconds = timed(predict_model, model, config)
        numbers = f"{found.mean_error:.2%}", f"{found.rank_correlation:.3f}"
        rows.append((profile.model, str(found.num_placements), *numbers, f"{seconds:.0f}"))
        print(f"{describe_profile(profile)}\n", flush=True)
        reached = found.rank_correlation >= config.min_correlation
        holds = holds and reached and found.mean_error <= config.max_error
    print("Predicted and measured, of placements drawn afterwards")
    print_table(rows, right=(1, 2, 3, 4))
    print("Every profile is within the limits." if holds else "Not every profile is.")
    return 0 if holds else 1


if __name__ == "__main__":
    run(main, CalibrationConfig, __doc__)
