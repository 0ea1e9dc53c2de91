"""Search for the fastest placement whose outputs stay near those of f32.

On a CPU with bf16, running everything in bf16 is fast but inaccurate, and in f32 it is exact but
slow. The study compares placements in between, found by agents, searches and random sampling. Run
it with::

    python -m device_placement.benchmarks.accuracy --out accuracy.csv

Searches that are already in the file are not repeated, so the study can be stopped at any time
and run again with the same settings, or with more models, seeds or searches.
"""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass

from device_placement.agents.training.preset_placer import named_search
from device_placement.benchmarks.study import TWO_PRECISIONS, LiveTable, ModelsConfig, progress, run
from device_placement.benchmarks.suite.problems import single_errors
from device_placement.benchmarks.suite.results import append_lines, read_lines
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.compare import Contender, compare, contenders
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator

FIELDS = ("model", "search", "seed", "evaluations", "wall_s", "assignment")


@dataclass(frozen=True)
class AccuracyConfig(ModelsConfig):
    """Options of the study."""

    searches: tuple[str, ...] = ("random", "local_search", "posterior_sampling")
    """Names of placers and presets."""
    devices: str = TWO_PRECISIONS
    """Two CPU instances; the second one is the reference and has the exact outputs."""
    share: float = 0.5
    """Allowed output error, as a share of the error of the first device alone."""
    max_groups: int = 24
    """Merge groups until at most this many remain."""
    budget: int = 500
    """Distinct placements per search, singles included."""
    seeds: int = 3
    """Runs of each search, with seeds 0, 1, ..."""
    tolerance: float = 0.05
    """Stop sampling during a search when the 95 % interval is narrower than this fraction."""
    max_samples: int = 10
    """Most samples per measurement during a search."""
    rounds: int = 30
    """Samples of each placement in the final comparison."""
    store: str | None = "auto"
    """Database file of earlier evaluations; auto: in the user's cache folder, None: no store."""
    out: str = ""
    """CSV file of the searches; those it already holds are not repeated. Default: none."""


def verifying(
    model: str, config: AccuracyConfig, max_output_error: float | None = None
) -> contextlib.closing[OpenVINOEvaluator]:
    """Open an evaluator that verifies outputs against the second device."""
    evaluator = make_evaluator(
        model,
        config.devices,
        max_groups=config.max_groups,
        reference=config.devices.split(",")[1].partition(":")[0],
        verify=True,
        max_output_error=max_output_error,
        tolerance=config.tolerance,
        max_samples=config.max_samples,
        store=config.store,
    )
    return contextlib.closing(evaluator)


def search_all(model: str, config: AccuracyConfig) -> None:
    """Search with every method and seed, measure the results again in turns, print a table."""
    with verifying(model, config) as free:
        errors = single_errors(free)
    limit = config.share * max(errors.values())
    known = _read(config.out)
    found: dict[str, list[int]] = {}
    for seed in range(config.seeds):
        for name in config.searches:
            key = (model, name, str(seed))
            if key not in known:
                known[key] = _search(model, name, seed, limit, config)
            found[f"{name}, seed {seed}"] = known[key]
    with verifying(model, config) as free:
        entries = [one for one in contenders(free, found) if one.entry and one.entry.op_devices]
        again = compare(free, entries, config.rounds)
        errors |= {name: free.evaluate(one).output_error for name, one in found.items()}
    _print_table(model, limit, entries, again, errors)


def _search(model: str, name: str, seed: int, limit: float, config: AccuracyConfig) -> list[int]:
    """Search once, record the placement found, and return it."""
    with verifying(model, config, limit) as evaluator:
        result = named_search(name).place(evaluator, config.budget, seed)
        best = evaluator.evaluate(result.assignment)
    progress(
        f"  {model}, {name}, seed {seed}: {1e3 * best.time_s:.2f} ms, error "
        f"{best.output_error:.2e}, {len(result.evaluations)} placements in {result.wall_s:.0f} s"
    )
    if config.out:
        devices = " ".join(map(str, result.assignment))
        count, wall_s = len(result.evaluations), f"{result.wall_s:.0f}"
        append_lines(config.out, FIELDS, [(model, name, seed, count, wall_s, devices)])
    return list(result.assignment)


def _read(out: str) -> dict[tuple[str, str, str], list[int]]:
    """Read the placement that each model, search and seed found; none without a file."""
    return {
        (line["model"], line["search"], line["seed"]): [*map(int, line["assignment"].split())]
        for line in read_lines(out)
    }


def _print_table(
    model: str,
    limit: float,
    entries: list[Contender],
    again: dict[str, Evaluation],
    errors: dict[str, float],
) -> None:
    print(f"\n{model}: outputs within {limit:.3g} (relative L2 error) of f32")
    columns = "placement:<46", "median ms:>10.2f", "95 % interval:>20", "subgraphs:>11"
    table = LiveTable(*columns, "error:>10.2e")
    for entry in entries:
        one = again[entry.name]
        interval = f"{1e3 * one.interval_s[0]:.2f} - {1e3 * one.interval_s[1]:.2f}"
        table.add(entry.name, 1e3 * one.time_s, interval, one.num_subgraphs, errors[entry.name])
    for name in dict.fromkeys(label.partition(",")[0] for label in again if ", seed" in label):
        times = [one.time_s for label, one in again.items() if label.startswith(f"{name}, seed")]
        print(f"{name}, median over the seeds: {1e3 * statistics.median(times):.2f} ms")


def main(config: AccuracyConfig) -> int:
    """Print one table per model, and return the exit status."""
    for model in config.models:
        search_all(model, config)
    return 0


if __name__ == "__main__":
    run(main, AccuracyConfig, __doc__)
