"""Figures of a benchmark: best-so-far curves, performance profiles, placements, timelines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from device_placement.benchmarks.report.scores import Estimate, Scores, profiles
from device_placement.benchmarks.suite.problems import open_problem, opened
from device_placement.benchmarks.suite.results import ProblemKey, RunRow
from device_placement.benchmarks.suite.suites import SIMULATED, Problem
from device_placement.envs.devices import parse_devices
from device_placement.envs.rendering.graph import render_picture
from device_placement.envs.rendering.style import OTHERS, literal, new_figure, plain_axes
from device_placement.envs.rendering.timeline import draw_timeline
from device_placement.envs.simulation.timeline import timeline
from device_placement.envs.untrusted import check_file_devices

SHOWN = len(OTHERS)  # placers in a figure
LEAST = 1e-3  # smallest gap that is distinguished from none
SIZE = 8.0, 4.5  # inches
GAPS = np.geomspace(LEAST, 10.0, 60)  # of the profile


def shown_placers(means: dict[str, Estimate], always: Sequence[str] = ("random",)) -> list[str]:
    """Return the best placers and those always shown, as many as there are colours."""
    kept = [name for name in always if name in means]
    best = sorted((name for name in means if name not in kept), key=lambda name: -means[name].value)
    return [*best[: SHOWN - len(kept)], *kept]


def draw_curves(scores: Scores, problem: ProblemKey, placers: Sequence[str]) -> Any:
    """Draw the best so far after each evaluation: the median run, and quartiles as a band."""
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    floor_s = scores.floor_s(problem)
    for colour, placer in zip(OTHERS, placers, strict=False):
        rows = scores.of(problem, placer)
        if not rows:
            continue
        last = max(row.evaluations for row in rows)
        steps = sorted({1, last, *(number for row in rows for number, _ in row.improvements)})
        times_s = np.array([[row.after(step) for row in rows] for step in steps])
        gaps = np.where(np.isnan(times_s), np.inf, 100 * np.maximum(times_s / floor_s - 1, 0.0))
        low, middle, high = np.quantile(gaps, [0.25, 0.5, 0.75], axis=1, method="nearest")
        axes.fill_between(steps, low, high, step="post", color=colour, alpha=0.2, linewidth=0)
        axes.step(steps, middle, where="post", color=colour, linewidth=1.6, label=literal(placer))
        axes.plot(steps[-1], middle[-1], "o", color=colour, markersize=3.5)
    single = 100 * scores.single_gap(problem)
    axes.axhline(single, color="black", linestyle=":", linewidth=1.0, label="best single")
    axes.set(xscale="log", xlabel="evaluations", title=literal(problem[1]))
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.5)
    axes.set_ylim(0.0, max(1.0, axes.get_ylim()[1]))  # also when all are zero
    known = "best known" if math.isnan(scores.bound_s(problem)) else "best bound"
    known = "optimum" if scores.proven(problem) else known
    axes.set_ylabel(f"gap to the {known} in %")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, figure)
    return figure


def draw_profile(scores: Scores, suites: Sequence[str], placers: Sequence[str]) -> Any:
    """Draw the share of runs within each gap, over all problems; bands: 95 %."""
    figure = new_figure(*SIZE)
    axes = figure.add_subplot()
    efficiencies = scores.efficiencies(suites)
    found = profiles({name: efficiencies[name] for name in placers}, 1 / (1 + GAPS))
    for colour, (placer, (share, low, high)) in zip(OTHERS, found.items(), strict=False):
        axes.fill_between(100 * GAPS, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(100 * GAPS, share, color=colour, linewidth=1.6, label=literal(placer))
    axes.set(xscale="log", xlabel="gap in %", ylabel="share of runs with at most this gap")
    axes.set(ylim=(0.0, 1.03), title=literal(", ".join(suites)))
    axes.xaxis.set_major_formatter("{x:g}")
    _finish(axes, figure)
    return figure


def draw_placement(definition: Problem, row: RunRow) -> Any:
    """Return a run's placement as a picture of the graph: (height, width, 3) RGB.

    Raises:
        DeviceError: when it was measured on devices that this machine lacks, or with properties
            that a file may not set.
    """
    simulated = definition.evaluator == SIMULATED
    devices = definition.devices if simulated else row.devices  # "auto" may differ here
    if devices != "auto":
        check_file_devices(parse_devices(devices), "the benchmark")
    plain = dataclasses.replace(definition, share=None, devices=devices)
    with opened(plain) as evaluator:
        subgraphs = evaluator.evaluate(row.assignment).num_subgraphs if simulated else 0
        names = [device.name for device in evaluator.devices]
        return render_picture(evaluator.coarse, names, row.assignment, row.time_s, subgraphs)


def draw_run_timeline(definition: Problem, row: RunRow) -> Any:
    """Draw the timeline of a run's placement on a simulated problem."""
    evaluator = open_problem(definition)
    assert evaluator.costs is not None
    events = timeline(evaluator.costs, row.assignment, definition.schedule)
    names = [device.name for device in evaluator.devices]
    title = f"{row.problem}: {1e3 * row.time_s:.4g} ms, {definition.schedule}"
    return draw_timeline(events, names, title)


def _finish(axes: Any, figure: Any) -> None:
    plain_axes(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
