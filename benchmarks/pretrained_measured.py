"""The pretrained placer on this machine's cores, beside other placers with as few placements.

The suite is local_parallel: halves of the cores run side by side. The policy sees the costs of one
profiled run per device. The best placement of each search is measured again, in turns with the
others, with the singles and with what OpenVINO does by itself. Run it with::

    python -m device_placement.benchmarks.pretrained_measured
"""

from __future__ import annotations

from dataclasses import dataclass

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.pretrained.placer import PretrainedPolicy
from device_placement.agents.runs.summary import measure_again
from device_placement.benchmarks.study import LiveTable, progress, run, timed
from device_placement.benchmarks.suite.problems import opened, problems_of
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.measuring.compare import paired_ratio
from device_placement.envs.measuring.config import MeasureConfig

SUITE = "local_parallel"
PLACERS = ("pretrained", "posterior_sampling", "random")


@dataclass(frozen=True)
class PretrainedMeasuredConfig:
    """Options of the study."""

    weights: str = ""
    """File of weights; those in the package by default."""
    budget: int = 30
    """Placements of each search, in addition to the singles."""
    rounds: int = 30
    """Samples of each contender at the end."""
    seed: int = 0
    """Seed of the searches."""


def main(config: PretrainedMeasuredConfig) -> int:
    """Print a table for each problem."""
    table = LiveTable(
        "problem:<34", "placement:<34", "ms:>8.2f", "  over the best single:<28", "seconds:>8"
    )
    for name, problem in problems_of(SUITE).items():
        with opened(problem, MeasureConfig(executor="auto")) as evaluator:
            singles = single_assignments(evaluator)
            for one in singles.values():
                evaluator.evaluate(one)
            policy, seconds = timed(
                PretrainedPolicy.load, config.weights, evaluator, "auto", config.seed
            )
            greedy, more = timed(policy.greedy)
            found, took = {"zero-shot": greedy}, {"zero-shot": seconds + more}
            for placer in PLACERS:
                options = {"weights": config.weights} if placer == "pretrained" else {}
                made = make_placer(placer, **options)
                budget = config.budget + len(singles)
                result, took[placer] = timed(made.place, evaluator, budget, config.seed)
                found[placer] = list(result.assignment)
                progress(name, placer)
            measured = measure_again(evaluator, found, config.rounds)
        best = min(singles, key=lambda one: measured[one].time_s)
        for label, evaluation in measured.items():
            ratio, (low, high) = paired_ratio(measured[best], evaluation)
            text = f"  {ratio:.3f}x ({low:.3f} - {high:.3f})"
            spent = f"{took[label]:.1f}" if label in took else ""
            table.add(name, label, 1e3 * evaluation.time_s, text, spent)
    return 0


if __name__ == "__main__":
    run(main, PretrainedMeasuredConfig, __doc__)
