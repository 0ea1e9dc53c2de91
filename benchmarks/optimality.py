"""Time that exact placers take to prove optima, on the paper's machine and on public workloads.

Run it with::

    python -m device_placement.benchmarks.optimality --data FOLDER
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.base import PlacerResult
from device_placement.benchmarks.study import ModelsConfig, print_table, progress, run
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.simulation.schedule import SCHEDULES
from device_placement.envs.simulation.workloads import load_workload

HEADER = ("problem", "schedule", "placer", "ms", "bound ms", "gap", "s")


@dataclass(frozen=True)
class OptimalityConfig(ModelsConfig):
    """Options of the study; the models are solved on the paper's machine."""

    data: str = ""
    """Folder of dnn-partitioning inference inputs (.json), each solved with and without contiguity;
    default: none."""
    time_limit_s: float = 60.0
    """Time limit of constraint programming per problem."""


def solve(
    name: str, schedule: str, placer: str, evaluator: Evaluator, **options: float
) -> tuple[str, ...]:
    """Solve a problem twice, as the first run compiles; return the second's line of the table."""
    found: PlacerResult = make_placer(placer, **options).place(evaluator, 100, 0)
    if placer != "cp_sat":
        found = make_placer(placer, **options).place(evaluator, 100, 0)
    proof = ("-", "-")
    if not math.isnan(found.bound_s):
        gap = "0, proven" if found.proven else f"{found.time_s / found.bound_s - 1:.2%}"
        proof = (f"{1e3 * found.bound_s:.6f}", gap)
    return (name, schedule, placer, f"{1e3 * found.time_s:.6f}", *proof, f"{found.wall_s:.3f}")


def main(config: OptimalityConfig) -> int:
    """Print one line per problem and placer."""
    limit = {"time_limit_s": config.time_limit_s}
    rows: list[tuple[str, ...]] = [HEADER]
    for model in config.models:
        for schedule in SCHEDULES:
            evaluator = make_evaluator(
                model, evaluator="simulator", hardware="paper", schedule=schedule
            )
            if schedule == "sequential":
                rows.append(solve(model, schedule, "min_cut", evaluator))
            rows.append(solve(model, schedule, "cp_sat", evaluator, **limit))
            progress(*rows[-1])
    for path in sorted(Path(config.data).glob("*inference.json")) if config.data else ():
        workload = load_workload(path).evaluator("max_load")
        for placer, options in (("contiguous", {}), ("cp_sat", limit)):
            rows.append(solve(path.stem, "max_load", placer, workload, **options))
            progress(*rows[-1])
    print_table(rows, right=(3, 4, 5, 6))
    return 0


if __name__ == "__main__":
    run(main, OptimalityConfig, __doc__)
