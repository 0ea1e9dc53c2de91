"""Time of coarsening, features, evaluation and training on graphs of 100 to 100,000 ops.

Run it with::

    python -m device_placement.benchmarks.scale --figure scale.png

Graphs are random and layered. The steps after coarsening are timed twice: with one group per op,
and with the few groups that coarsening makes.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.benchmarks.study import print_table, progress, run, timed, write_records
from device_placement.benchmarks.suite.random_graphs import PREFIX, layered_evaluator, layered_graph
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.features import group_features
from device_placement.envs.rendering.style import OTHERS, new_figure, plain_axes

STEPS = ("coarsening", "features", "evaluation", "training step")


@dataclass(frozen=True)
class ScaleConfig:
    """Options of the study."""

    ops: tuple[int, ...] = (100, 316, 1000, 3162, 10_000, 31_623, 100_000)
    """Numbers of ops of the graphs."""
    max_groups: int = 256
    """Coarsen graphs to at most this many groups."""
    repetitions: int = 5
    """Timings per step, whose median counts; a step that takes over ten seconds is timed once."""
    preset: str = "nodewise_ppo"
    """Preset to train."""
    train_up_to: int = 10_000
    """Time training steps with at most this many groups; more take too much memory."""
    schedule: str = "concurrent"
    """Schedule of the simulator."""
    out: str = ""
    """CSV file of the times; default: none."""
    figure: str = ""
    """PNG file of the plot; default: none."""


@dataclass(frozen=True)
class Line:
    """Time of one step."""

    ops: int
    groups: int
    step: str
    seconds: float


def median_s(function: Callable[[], Any], repetitions: int) -> float:
    """Return the median seconds of a call, after an uncounted one if it is short."""
    times = []
    for number in range(repetitions + 1):
        times.append(timed(function)[1])
        if number == 0 and times[0] > 10.0:
            return times[0]
    return statistics.median(times[1:])


def time_size(ops: int, config: ScaleConfig) -> list[Line]:
    """Time each step on a graph with this number of ops, and return the times."""
    lines = []
    graph = layered_graph(ops, devices=("CPU", "GPU"))

    def add(groups: int, step: str, function: Callable[[], Any]) -> None:
        lines.append(Line(ops, groups, step, median_s(function, config.repetitions)))

    few = min(ops, config.max_groups)
    add(few, "coarsening", lambda: coarsen(graph, "fusion", config.max_groups))
    for groups in dict.fromkeys((ops, few)):
        evaluator = layered_evaluator(f"{PREFIX}{ops}", "desktop", "auto", config.schedule, groups)
        add(groups, "features", lambda: group_features(evaluator.coarse))  # noqa: B023
        placement = np.random.default_rng(0).integers(2, size=groups).tolist()
        add(groups, "evaluation", lambda: evaluator.evaluate(placement))  # noqa: B023
        if groups <= config.train_up_to:
            card = PolicyCard.of(config.preset, None, [evaluator])
            algorithm = make_algorithm(config.preset, card.make_env(evaluator), seed=0)
            steps = int(algorithm.n_steps)  # type: ignore[attr-defined]
            add(groups, "training step", lambda: algorithm.learn(steps))  # noqa: B023
            lines[-1] = Line(ops, groups, "training step", lines[-1].seconds / steps)
    return lines


def draw(lines: Sequence[Line]) -> Any:
    """Draw seconds against ops on logarithmic axes; dashed: few groups."""
    figure = new_figure(7.5, 4.8)
    axes = figure.add_subplot()
    for colour, step in zip(OTHERS, STEPS, strict=False):
        mine = [one for one in lines if one.step == step]
        fewest = {ops: min(o.groups for o in mine if o.ops == ops) for ops in {o.ops for o in mine}}
        few = [one for one in mine if one.groups == fewest[one.ops]]
        whole = [one for one in mine if one.groups == one.ops]
        if not set(whole) - set(few):
            whole = []  # small graphs are both
        for style, label, some in (("-", "one group per op", whole), ("--", "few groups", few)):
            if some:
                sizes, seconds = [one.ops for one in some], [one.seconds for one in some]
                options = {"color": colour, "marker": "o", "markersize": 4}
                axes.plot(sizes, seconds, style, label=f"{step}, {label}", **options)
    axes.set(xscale="log", yscale="log", xlabel="ops of the graph", ylabel="seconds")
    plain_axes(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    return figure


def main(config: ScaleConfig) -> int:
    """Print a table, and write the requested files."""
    torch.set_num_threads(1)
    lines = []
    for ops in config.ops:
        lines += time_size(ops, config)
        progress(f"{ops} ops timed")
    cells = {(one.ops, one.groups, one.step): f"{1e3 * one.seconds:.3g}" for one in lines}
    table = [("ops", "groups", *(f"{step}, ms" for step in STEPS))]
    for ops, groups in dict.fromkeys((one.ops, one.groups) for one in lines):
        found = (cells.get((ops, groups, step), "-") for step in STEPS)
        table.append((str(ops), str(groups), *found))
    print_table(table, right=range(6))
    if config.out:
        write_records(config.out, Line, lines)
    if config.figure:
        draw(lines).savefig(config.figure, dpi=100)
    return 0


if __name__ == "__main__":
    run(main, ScaleConfig, __doc__)
