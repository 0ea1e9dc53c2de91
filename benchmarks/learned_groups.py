"""Number of groups that graph-parsing agents form during training.

HSDAG's published code merges a connected graph into a few groups, often one, and then only
single devices can be tried. Run it with::

    python -m device_placement.benchmarks.learned_groups --out groups.csv --figure groups.png
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from device_placement.agents.presets import PRESETS
from device_placement.agents.runs.recording import REQUESTS_PER_BUDGET, RecordingEvaluator
from device_placement.agents.training.algorithms import make_algorithm
from device_placement.agents.training.callbacks import SearchCallback
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.benchmarks.study import print_table, progress, run, write_records
from device_placement.benchmarks.suite.problems import open_problem, problems_of
from device_placement.benchmarks.suite.suites import Problem
from device_placement.envs.errors import choose
from device_placement.envs.rendering.style import OTHERS, literal, new_figure

PARTS, WINDOW = 100, 10  # of a training; in its first and last window
HEAD = "preset,problem,groups,first 10 %,last 10 %,proposals,stayed at one"
NOTE = """Learned groups: median (fewest) of all seeds.
Stayed at one: trainings in which all proposals of some hundredth of it had a single group."""


@dataclass(frozen=True)
class LearnedGroupsConfig:
    """Options of the study."""

    presets: tuple[str, ...] = ("hsdag", "hsdag_ppo")
    """Presets that learn groups."""
    suite: str = "paper"
    """Suite of problems: paper, hard."""
    budget: int = 2000
    """Distinct placements per training, singles included."""
    seeds: int = 2
    """Trainings per preset and problem, with seeds 0, 1, ..."""
    out: str = ""
    """CSV file with a line per hundredth of a training; default: none."""
    figure: str = ""
    """PNG file of the curves; default: none."""


@dataclass(frozen=True)
class Part:
    """A hundredth of one training."""

    preset: str
    problem: str
    seed: int
    groups: int  # of the model
    proposals: int  # until its end
    mean: float  # learned groups
    fewest: int
    most: int


class GroupCounter(SearchCallback):
    """Search callback that also keeps the number of learned groups of each proposal."""

    def __init__(self, recorder: RecordingEvaluator) -> None:
        super().__init__([recorder])
        self.counts: list[float] = []

    def _on_step(self) -> bool:
        extractor: Any = self.model.policy.features_extractor
        self.counts.append(extractor.num_groups)
        return super()._on_step()


def train(name: str, label: str, problem: Problem, seed: int, budget: int) -> list[Part]:
    """Train once; return `PARTS` parts of the training, or one per proposal if these are fewer."""
    evaluator = open_problem(problem)
    recorder = RecordingEvaluator(evaluator, budget)
    recorder.evaluate_singles()
    env, counter = PolicyCard.of(name, None, [evaluator]).make_env(recorder), GroupCounter(recorder)
    make_algorithm(name, env, seed=seed).learn(REQUESTS_PER_BUDGET * budget, callback=counter)
    parts, end = [], 0
    for counts in np.array_split(counter.counts, min(PARTS, len(counter.counts))):
        end += len(counts)
        found = round(float(counts.mean()), 2), int(counts.min()), int(counts.max())
        parts.append(Part(name, label, seed, evaluator.coarse.num_groups, end, *found))
    return parts


def row_of(runs: Sequence[Sequence[Part]]) -> tuple[str, ...]:
    """Summarise the trainings of a preset on a problem as a row of the table."""
    first, cells = runs[0][0], []
    for window in (slice(0, WINDOW), slice(-WINDOW, None)):
        parts = [part for run in runs for part in run[window]]
        median = np.median([part.mean for part in parts])
        cells.append(f"{median:.1f} ({min(part.fewest for part in parts)})")
    stayed = sum(any(part.most == 1 for part in run) for run in runs)
    ends = (f"{np.median([run[-1].proposals for run in runs]):.0f}", f"{stayed} of {len(runs)}")
    return first.preset, first.problem, str(first.groups), *cells, *ends


def draw(runs: Sequence[Sequence[Part]], path: str) -> None:
    """Draw one panel per problem, one colour per preset, one line and range per training."""
    presets = list(dict.fromkeys(run[0].preset for run in runs))
    problems = list(dict.fromkeys(run[0].problem for run in runs))
    figure = new_figure(4 * len(problems), 3.8)
    panels = figure.subplots(1, len(problems), squeeze=False)[0]
    for one in runs:
        first, axes = one[0], panels[problems.index(one[0].problem)]
        colour = OTHERS[presets.index(first.preset)]
        ends, means = [part.proposals for part in one], [part.mean for part in one]
        span = [part.fewest for part in one], [part.most for part in one]
        axes.fill_between(ends, *span, color=colour, alpha=0.15, linewidth=0)
        axes.plot(ends, means, color=colour, linewidth=1.2, label=first.preset)
        axes.axhline(first.groups, color="black", linestyle=":", label="groups of the model")
        axes.set(title=literal(first.problem), xlabel="proposals", xscale="log")
        axes.set_ylim(0, 1.05 * first.groups)
    panels[0].set_ylabel("learned groups")
    lines, labels = panels[0].get_legend_handles_labels()
    named = dict(zip(labels, lines, strict=True))  # one per name
    figure.legend(named.values(), named, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(path, dpi=100)


def main(config: LearnedGroupsConfig) -> int:
    """Train, write the requested files, and print the table."""
    torch.set_num_threads(1)
    known = {name: one for name, one in PRESETS.items() if one.policy == "parsing"}
    rows, runs = [tuple(HEAD.split(","))], list[list[Part]]()
    for name in config.presets:
        choose("preset that learns groups", name, known)
    for name in config.presets:
        for label, problem in problems_of(config.suite).items():
            mine = [train(name, label, problem, s, config.budget) for s in range(config.seeds)]
            progress(f"{name}, {label}: trained")
            rows, runs = [*rows, row_of(mine)], runs + mine
    print_table(rows, right=range(2, 7))
    print(f"\n{NOTE}")
    if config.out:
        write_records(config.out, Part, [part for one in runs for part in one])
    if config.figure:
        draw(runs, config.figure)
    return 0


if __name__ == "__main__":
    run(main, LearnedGroupsConfig, __doc__)
