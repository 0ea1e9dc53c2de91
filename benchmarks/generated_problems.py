"""Statistics of generated problems, and how far their best single is from the best known placement.

Run it with::

    python -m device_placement.benchmarks.generated_problems --problems 1000

The best known placement is the best of the singles, of HEFT, of a neighbourhood search from the
best single and from HEFT's placement, and of a short simulated annealing. It is a bound on the
optimum and no proof: where a single is the best known, a better placement may exist.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from device_placement.agents.placers import make_placer
from device_placement.agents.placers.exact.common import alike_devices
from device_placement.agents.placers.neighbourhoods import neighbourhood_search
from device_placement.agents.placers.search_space import SearchSpace
from device_placement.benchmarks.study import (
    judge,
    print_table,
    progress,
    run,
    timed,
    write_records,
)
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.graph.features import group_features
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.problems.generator import draw_problem
from device_placement.envs.problems.wiring import FAMILIES, op_levels
from device_placement.envs.simulation.schedule import SCHEDULES

SINGLES_TARGET = 1 / 3  # most problems whose best known placement is a single
SECONDS_TARGET = 0.010  # to generate 100 groups
NEAR_100 = 80, 125  # groups of a problem that counts for it
SAME = 1 - 1e-9  # relative: a placement above this share of the best single's time is no better


@dataclass(frozen=True)
class GeneratedProblemsConfig:
    """Options of the study."""

    problems: int = 1000
    """Number of problems, of the seeds from --seed on."""
    seed: int = 0
    """First seed."""
    patience: int = 4
    """Batches of 1024 moves in a row without success after which a search ends."""
    annealed: int = 300
    """Placements of simulated annealing."""
    out: str = ""
    """CSV file with a line per problem; default: none."""


@dataclass(frozen=True)
class Line:
    """Statistics of one problem."""

    seed: int
    family: str
    schedule: str
    groups: int
    width: int  # of the widest level, a lower bound on the largest antichain
    edges: int
    devices: int
    twins: bool  # whether some devices are alike
    limited: bool  # whether devices have a limit of their own
    pooled: bool  # whether devices share a memory
    lacking: bool  # whether a device can't run some ops
    singles: int  # valid ones
    single_s: float  # the best single
    heft_s: float  # inf if it is invalid
    best_s: float  # the best known
    seconds: float  # to generate it
    features_s: float  # to compute its features

    @property
    def gap(self) -> float:
        """How much longer the best single takes than the best known placement, relative."""
        return self.single_s / self.best_s - 1

    @property
    def single_is_best(self) -> bool:
        """Whether no placement is known that is faster than a single."""
        return self.best_s >= self.single_s * SAME


def survey(seed: int, patience: int = 4, annealed: int = 300) -> Line:
    """Generate a problem, search for a good placement, and return statistics of the problem.

    Args:
        seed: of the problem.
        patience: batches in a row without success after which a search ends.
        annealed: placements of simulated annealing.
    """
    problem, seconds = timed(draw_problem, seed)
    evaluator, more = timed(problem.evaluator)
    coarse, costs = evaluator.coarse, evaluator.costs
    _, features_s = timed(group_features, coarse)
    levels = op_levels(coarse.num_groups, [(a, b) for a, b in coarse.edge_index.T.tolist()])
    singles = evaluator.evaluate_many(np.array([*single_assignments(evaluator).values()]))
    heft = np.array(make_placer("heft").place(evaluator, 1, 0).evaluations[0][0])
    heft_s = float(evaluator.evaluate_many(heft[None])[0])
    starts = [heft] if np.isfinite(heft_s) else []
    starts.append(np.full(coarse.num_groups, int(singles.argmin())))
    generator, allowed = np.random.default_rng(seed), SearchSpace.of(evaluator).allowed
    found = [
        neighbourhood_search(evaluator.evaluate_many, one, allowed, generator, patience)[1]
        for one in starts
    ]
    found.append(make_placer("annealing").place(evaluator, annealed, seed).time_s)
    devices = problem.workload.profile.devices
    return Line(
        seed=seed,
        family=problem.family,
        schedule=problem.schedule,
        groups=coarse.num_groups,
        width=max(Counter(levels).values()),
        edges=coarse.num_edges,
        devices=len(devices),
        twins=len(alike_devices(costs)) < len(devices),
        limited=bool(np.isfinite(costs.memory_bytes).any()),
        pooled=bool(costs.pool_bytes.size),
        lacking=bool(np.isinf(costs.compute_s).any()),
        singles=int(np.isfinite(singles).sum()),
        single_s=float(singles.min()),
        heft_s=heft_s,
        best_s=min(float(singles.min()), *found),
        seconds=seconds + more,
        features_s=features_s,
    )


def best_shares(lines: Sequence[Line], label: str) -> tuple[str, ...]:
    """Return a row: number of problems, share of singles, and quantiles of the single's gap."""
    gaps = np.quantile([one.gap for one in lines], (0.1, 0.25, 0.5, 0.75, 0.9))
    alone = statistics.fmean(one.single_is_best for one in lines)
    heft = statistics.median(one.heft_s / one.best_s - 1 for one in lines)
    ahead = statistics.fmean(one.heft_s < one.single_s * SAME for one in lines)
    return (
        label,
        str(len(lines)),
        f"{alone:.1%}",
        *(f"{100 * gap:.0f}" for gap in gaps),
        f"{100 * heft:.0f}" if np.isfinite(heft) else "-",
        f"{ahead:.0%}",
    )


def print_sizes(lines: Sequence[Line]) -> None:
    """Print quantiles of sizes, and shares of what restricts placements."""
    rows: list[tuple[str, ...]] = [("per problem", "least", "10 %", "median", "90 %", "most")]
    for label, values in (
        ("groups", [one.groups for one in lines]),
        ("width: groups of the widest level", [one.width for one in lines]),
        ("edges per group", [one.edges / one.groups for one in lines]),
        ("devices", [one.devices for one in lines]),
        ("valid singles", [one.singles for one in lines]),
    ):
        quantiles = np.quantile(values, (0, 0.1, 0.5, 0.9, 1))
        rows.append((label, *(f"{one:.3g}" for one in quantiles)))
    print_table(rows, right=range(1, 6))
    print()
    for label, found in (
        ("with a memory limit or a shared memory", [one.limited or one.pooled for one in lines]),
        ("with a shared memory", [one.pooled for one in lines]),
        ("with ops that a device can't run", [one.lacking for one in lines]),
        ("with devices that are alike", [one.twins for one in lines]),
    ):
        print(f"{statistics.fmean(found):6.1%}  {label}")


def main(config: GeneratedProblemsConfig) -> int:
    """Print the statistics; return 1 when a target is missed."""
    survey(config.seed, config.patience, config.annealed)  # compiles
    lines = []
    for number in range(config.problems):
        lines.append(survey(config.seed + number, config.patience, config.annealed))
        if (number + 1) % 100 == 0:
            progress(f"{number + 1} problems")
    if config.out:
        write_records(config.out, Line, lines)
    print_sizes(lines)
    gaps = [f"gap {share} %" for share in (10, 25, 50, 75, 90)]
    rows: list[tuple[str, ...]] = [
        ("problems", "number", "single is best", *gaps, "HEFT's gap", "HEFT ahead")
    ]
    for schedule in SCHEDULES:
        rows += _row([one for one in lines if one.schedule == schedule], schedule)
    for family in FAMILIES:
        rows += _row([one for one in lines if one.family == family], family)
    rows.append(best_shares(lines, "all"))
    print("\nGap: how much longer the best single takes than the best known placement, in percent,")
    print(
        "quantiles. HEFT's is the median; ahead: share in which HEFT is faster than every single.\n"
    )
    print_table(rows, right=range(1, 10))
    alone = statistics.fmean(one.single_is_best for one in lines)
    few = alone <= SINGLES_TARGET
    print(f"\nA single is the best known in {alone:.1%}: {judge(few, 'at most a third')}")
    return int(not _print_times(lines) or not few)


def _row(lines: Sequence[Line], label: str) -> list[tuple[str, ...]]:
    return [best_shares(lines, label)] if lines else []


def _print_times(lines: Sequence[Line]) -> bool:
    """Print the time to generate problems; return whether the target is reached."""
    near = [one for one in lines if NEAR_100[0] <= one.groups <= NEAR_100[1]]
    reached = True
    for label, some in (("all", lines), (f"{NEAR_100[0]} to {NEAR_100[1]} groups", near)):
        if not some:
            continue
        seconds = [one.seconds for one in some]
        median, (low, high) = statistics.median(seconds), median_interval(seconds)
        features_s = statistics.median(one.features_s for one in some)
        print(
            f"Generated in {1e3 * median:.2f} ms (95 % interval {1e3 * low:.2f} - "
            f"{1e3 * high:.2f}), 90 % within {1e3 * float(np.quantile(seconds, 0.9)):.2f} ms; "
            f"features in {1e3 * features_s:.2f} ms: {label}, {len(some)} problems"
        )
        if some is near:
            reached = median <= SECONDS_TARGET
            print(judge(reached, f"{1e3 * SECONDS_TARGET:.0f} ms for 100 groups"))
    return reached


if __name__ == "__main__":
    run(main, GeneratedProblemsConfig, __doc__)
