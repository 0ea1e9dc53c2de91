"""What is proven, and how soon: exact placers on the paper's machine and on public workloads.

Run it with::

    python -m device_placement.benchmarks.optimality --data FOLDER
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.base import PlacerResult
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.rendering.text import align
from device_placement.envs.simulation.schedule import SCHEDULES
from device_placement.envs.simulation.workloads import load_workload

HEADER = ("problem", "schedule", "placer", "ms", "bound ms", "gap", "s")


@dataclass(frozen=True)
class OptimalityConfig:
    """What to solve."""

    models: tuple[str, ...] = ("resnet50", "inception_v3", "bert_base")
    """Models on the paper's machine."""
    data: str = ""
    """Folder of dnn-partitioning inference inputs (.json), each solved with and without contiguity;
    none by default."""
    time_limit_s: float = 60.0
    """What constraint programming may take for each problem."""


def solve(
    name: str, schedule: str, placer: str, evaluator: Evaluator, **options: float
) -> tuple[str, ...]:
    """One line of the table; the second of two runs, so that nothing is compiled meanwhile."""
    found: PlacerResult = make_placer(placer, **options).place(evaluator, 100, 0)
    if placer != "cp_sat":
        found = make_placer(placer, **options).place(evaluator, 100, 0)
    proof = ("-", "-")
    if not math.isnan(found.bound_s):
        gap = "0, proven" if found.proven else f"{found.time_s / found.bound_s - 1:.2%}"
        proof = (f"{1e3 * found.bound_s:.6f}", gap)
    return (name, schedule, placer, f"{1e3 * found.time_s:.6f}", *proof, f"{found.wall_s:.3f}")


def main(config: OptimalityConfig) -> int:
    """Print a line a problem and placer."""
    print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
    print(f"{config}\n", flush=True)
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
            print(*rows[-1], flush=True, file=sys.stderr)
    for path in sorted(Path(config.data).glob("*inference.json")) if config.data else ():
        workload = load_workload(path).evaluator("max_load")
        for placer, options in (("contiguous", {}), ("cp_sat", limit)):
            rows.append(solve(path.stem, "max_load", placer, workload, **options))
            print(*rows[-1], flush=True, file=sys.stderr)
    print("\n".join(align(rows, right=(3, 4, 5, 6))))
    return 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(OptimalityConfig, description=__doc__)))
