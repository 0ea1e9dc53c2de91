"""Transfer of policies to a model that they have not seen: zero-shot and fine-tuned.

A policy is trained on some models together, then places another one: zero-shot, both greedily and
as the best of several samples, then after a short fine-tuning. The study compares this with
training from scratch, and with searches that have the same number of evaluations. Run it with::

    python -m device_placement.benchmarks.transfer
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from device_placement.agents.runs.recording import Budget, RecordingEvaluator
from device_placement.agents.training.algorithms import greedy_assignment, make_algorithm
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.policy_file import PolicyCard, load_policy, save_policy
from device_placement.agents.training.preset_placer import named_search
from device_placement.agents.training.sampling import best_of_samples, last_horizon
from device_placement.benchmarks.report.tables import gap_cell
from device_placement.benchmarks.study import evaluate_singles, progress, run
from device_placement.envs.factory import make_evaluator
from device_placement.envs.simulation.simulator import SimulatedEvaluator


@dataclass(frozen=True)
class TransferConfig:
    """Options of the study."""

    presets: tuple[str, ...] = ("nodewise_ppo", "hsdag_ppo", "gdp")
    """Policies whose weights fit any model."""
    beside: tuple[str, ...] = ("random", "local_search", "posterior_sampling")
    """Searches to compare with, each with as many evaluations as the fine-tuning."""
    train: tuple[str, ...] = ("resnet50", "bert_base")
    """Models to train on."""
    test: str = "inception_v3"
    """Model to place."""
    hardware: str = "paper"
    """Simulated machine, as for the commands."""
    schedule: str = "concurrent"
    """Simulated execution, as for the commands."""
    budget: int = 2000
    """Distinct placements to train on, of all models together."""
    samples: int = 16
    """Placements to sample from the policy."""
    finetune: int = 100
    """Distinct placements to fine-tune on, singles included."""
    seeds: int = 3
    """Trainings per preset, with seeds 0, 1, ..."""
    time_limit_s: float = 60.0
    """Time limit of the exact solver."""


def simulator(model: str, config: TransferConfig) -> SimulatedEvaluator:
    """Make the evaluator of a model."""
    return make_evaluator(
        model, evaluator="simulator", hardware=config.hardware, schedule=config.schedule
    )


def pretrain(preset: str, seed: int, path: Path, config: TransferConfig) -> None:
    """Train on the models together, and save the policy."""
    evaluators = [simulator(model, config) for model in config.train]
    budget = Budget(config.budget)
    recorders = [RecordingEvaluator(one, budget) for one in evaluators]
    card = PolicyCard.of(preset, None, evaluators)
    env, callback = card.make_env(recorders), SearchCallback(recorders, config.train)
    algorithm = make_algorithm(preset, env, seed=seed)
    algorithm.learn(card.max_steps(env.layout.max_groups, config.budget), callback=callback)
    save_policy(algorithm, path, card)


def transferred(preset: str, seed: int, path: Path, config: TransferConfig) -> dict[str, float]:
    """Place the model that a saved policy has not seen; return the seconds of each way."""
    evaluator = simulator(config.test, config)
    card = PolicyCard.of(preset, None, [evaluator])
    algorithm = load_policy(path, card.make_env(evaluator), seed)
    greedy = greedy_assignment(algorithm, card.make_env(evaluator, horizon=last_horizon(card)))
    drawn = best_of_samples(algorithm, card, [evaluator], 0, config.samples)
    recorder = RecordingEvaluator(evaluator, config.finetune)
    recorder.evaluate_singles()
    algorithm = load_policy(path, card.make_env(recorder), seed)
    limit = card.max_steps(evaluator.coarse.num_groups, config.finetune)
    algorithm.learn(limit, callback=SearchCallback([recorder]))
    return {
        "zero-shot, greedy": evaluator.evaluate(greedy).time_s,
        f"zero-shot, best of {config.samples}": evaluator.evaluate(drawn or greedy).time_s,
        f"fine-tuned, best of {config.finetune}": recorder.best_s,
    }


def compare(config: TransferConfig) -> dict[str, list[float]]:
    """Return the seconds of each way, one per seed."""
    times: dict[str, list[float]] = {}
    target = simulator(config.test, config)

    def add(found: Mapping[str, float]) -> None:
        for label, time_s in found.items():
            times.setdefault(label, []).append(time_s)

    for seed in range(config.seeds):
        for preset in config.presets:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "policy.zip"
                pretrain(preset, seed, path, config)
                found = transferred(preset, seed, path, config)
            scratch = named_search(preset).place(target, config.finetune, seed)
            found[f"from scratch, best of {config.finetune}"] = scratch.time_s
            add({f"{preset}, {label}": time_s for label, time_s in found.items()})
            progress(f"seed {seed}: {preset} is trained")
        for name in config.beside:
            found_s = named_search(name).place(target, config.finetune, seed).time_s
            add({f"{name}, best of {config.finetune}": found_s})
    return times


def main(config: TransferConfig) -> int:
    """Print the gaps of all placers in a table."""
    target = simulator(config.test, config)
    exact = named_search("cp_sat", time_limit_s=config.time_limit_s).place(target, 10, 0)
    singles = [one.time_s for one in evaluate_singles(target)]
    times = compare(config)
    print(f"{config.test} after {', '.join(config.train)}; bound {1e3 * exact.bound_s:.4f} ms")
    print("Gap to it in percent, median and quartiles over the seeds, and every seed:\n")
    print(f"| | gap | {config.seeds} seeds |\n|---|---|---|")
    for label, some in {"best single": [min(singles)], **times}.items():
        gaps = [time_s / exact.bound_s - 1 for time_s in some]
        each = ", ".join(f"{100 * gap:.1f}" for gap in gaps)
        print(f"| {label} | {gap_cell(gaps)} | {each} |")
    return 0


if __name__ == "__main__":
    run(main, TransferConfig, __doc__)
