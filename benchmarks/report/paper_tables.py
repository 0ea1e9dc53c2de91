"""Command `paper-tables`: the tables of HSDAG's paper, its numbers beside ours.

Source: Duan et al., NeurIPS 2024, arXiv 2405.14185: tables 1, 2, 3 and 5. Its numbers were measured
on an i9-12900K with a Flex 170. Ours are simulated, on a profile that is derived from their data
sheets and scaled so that the single devices take as long as in the paper.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_placement.benchmarks.config import PaperTablesConfig
from device_placement.benchmarks.report.scores import (
    Scores,
    check_rliable,
    interquartile_means,
    median,
    probabilities_of_improvement,
)
from device_placement.benchmarks.report.tables import NOTHING, Table, interval_cell, number_cell
from device_placement.benchmarks.suite.algorithms import VARIANTS
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.benchmarks.suite.problems import open_problem
from device_placement.benchmarks.suite.results import ProblemKey, write_lines
from device_placement.benchmarks.suite.suites import PAPER
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from device_placement.envs.simulation.hardware import PAPER_SINGLES_S

SUITE = "paper"
NO_MEMORY = "out of memory"
CAPTION = "Ours: simulated on a derived profile of the paper's machine"
TITLES = {"inception_v3": "Inception-V3", "resnet50": "ResNet-50", "bert_base": "BERT-base"}

# Nodes and edges of the raw OpenVINO IR.
SIZES: Mapping[str, tuple[int, int]] = {
    "inception_v3": (728, 764),
    "resnet50": (396, 411),
    "bert_base": (1009, 1071),
}

# Seconds by model; None: out of memory.
LATENCIES: Mapping[str, Mapping[str, float | None]] = {
    "CPU-only": {"inception_v3": 0.0128, "resnet50": 0.0160, "bert_base": 0.00638},
    "GPU-only": {"inception_v3": 0.0120, "resnet50": 0.00781, "bert_base": 0.00277},
    "OpenVINO-CPU": {"inception_v3": 0.0128, "resnet50": 0.0234, "bert_base": 0.00657},
    "OpenVINO-GPU": {"inception_v3": 0.0138, "resnet50": 0.00876, "bert_base": 0.00284},
    "Placeto": {"inception_v3": 0.0116, "resnet50": 0.00932, "bert_base": 0.00651},
    "RNN-based": {"inception_v3": 0.0128, "resnet50": 0.00875, "bert_base": None},
    "HSDAG": {"inception_v3": 0.0105, "resnet50": 0.00766, "bert_base": 0.00267},
}
COUNTERPARTS = {"Placeto": "placeto", "RNN-based": "rnn", "HSDAG": "hsdag"}  # paper -> preset
SINGLES = {"CPU-only": "CPU", "GPU-only": "GPU.1"}

# Speed-up over the CPU, 1 - l / l_CPU, in percent.
ABLATION: Mapping[str, Mapping[str, float]] = {
    "hsdag": {"inception_v3": 17.9, "resnet50": 52.1, "bert_base": 58.2},
    "hsdag_without_output_shape": {"inception_v3": 8.59, "resnet50": 52.0, "bert_base": 56.4},
    "hsdag_without_position": {"inception_v3": 8.59, "resnet50": 52.0, "bert_base": 56.4},
    "hsdag_without_structure": {"inception_v3": 14.8, "resnet50": 52.1, "bert_base": 58.2},
}

# Seconds of a search.
COSTS: Mapping[str, Mapping[str, float | None]] = {
    "HSDAG": {"inception_v3": 2454, "resnet50": 1047, "bert_base": 2765},
    "Placeto": {"inception_v3": 2808, "resnet50": 1162, "bert_base": 4512},
    "RNN-based": {"inception_v3": 3706, "resnet50": 1212, "bert_base": None},
}


def paper_tables(config: PaperTablesConfig) -> int:
    """Print the tables, and write them if a folder is given."""
    check_rliable()
    rows = read_folders(config.folders, replayed=True)
    scores = Scores([row for row in rows if row.suite == SUITE])
    if not scores.rows:
        raise DevicePlacementError(
            f"There are no runs of the suite {SUITE!r} in {', '.join(config.folders)}; make some: "
            f"device-placement benchmark --suite {SUITE}."
        )
    tables = {
        "table_1": graph_sizes(),
        "table_2": latencies(scores),
        "table_3": ablation(scores),
        "table_5": search_costs(scores),
    }
    print("\n\n".join(table.markdown() for table in tables.values()))
    if config.out:
        folder = Path(config.out)
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            (folder / f"{name}.md").write_text(table.markdown() + "\n", encoding="utf-8")
            write_lines(str(folder / f"{name}.csv"), table.heads, table.lines)
    return 0


def graph_sizes() -> Table:
    """Return table 1: sizes of the models' graphs."""
    heads = ["", "nodes, paper", "nodes, ours", "edges, paper", "edges, ours"]
    lines = []
    for model, (nodes, edges) in SIZES.items():
        graph = open_problem(PAPER[_problem(model)[1]]).coarse.graph
        numbers = (nodes, graph.num_ops, edges, graph.num_edges)
        lines.append([TITLES[model], *map(str, numbers)])
    caption = (
        "Table 1: sizes of the graphs. The paper's are of the raw IR, ours of the bundled models "
        "after normalisation, constants included in both."
    )
    return Table(heads, lines, caption)


def latencies(scores: Scores) -> Table:
    """Return table 2: latency and speed-up over the CPU of every method."""

    def ours(name: str, model: str) -> str:
        if name in SINGLES:
            return _latency(single_s(model, SINGLES[name]), model)
        return _found(scores, COUNTERPARTS[name], model) if name in COUNTERPARTS else NOTHING

    lines = [
        _line(name, [_latency(by_model[m], m) for m in SIZES], [ours(name, m) for m in SIZES])
        for name, by_model in LATENCIES.items()
    ]
    nothing = [NOTHING] * len(SIZES)
    others = [name for name in scores.placers if name not in (*COUNTERPARTS.values(), *VARIANTS)]
    lines += [
        _line(f"`{name}`", nothing, [_found(scores, name, model) for model in SIZES])
        for name in others
    ]
    floor = [_latency(scores.floor_s(_problem(model)), model) for model in SIZES]
    lines.append(_line("optimum, or its bound", nothing, floor))
    caption = (
        f"Table 2: latency of the placement found, median over the seeds. {CAPTION}, scaled so "
        "that CPU-only and GPU-only are the paper's. OpenVINO-CPU and -GPU are AUTO's choices."
    )
    return _beside("milliseconds (speed-up over the CPU)", lines, caption)


def ablation(scores: Scores) -> Table:
    """Return table 3: the effect of leaving out features."""
    efficiencies = {k: v for k, v in scores.efficiencies([SUITE]).items() if k in ABLATION}
    means = interquartile_means(efficiencies)
    whole = next(iter(ABLATION))
    better = probabilities_of_improvement(efficiencies, whole) if whole in efficiencies else {}
    lines = []
    for name, by_model in ABLATION.items():
        found = [_spread(scores, name, model) for model in SIZES]
        line = _line(f"`{name}`", [f"{by_model[model]:g}" for model in SIZES], found)
        more = [interval_cell(*of[name]) if name in of else NOTHING for of in (means, better)]
        lines.append([*line, *more])
    caption = (
        f"Table 3: which features matter; median and range over the seeds. {CAPTION}. Efficiency: "
        "optimum over time, interquartile mean of models and seeds with its 95 % interval; better: "
        f"the probability that a run is better than one of `{whole}`, where 0.5 is as good."
    )
    more = ["efficiency, ours", f"better than {whole}, ours"]
    return _beside("speed-up over the CPU in %", lines, caption, more)


def search_costs(scores: Scores) -> Table:
    """Return table 5: the time of a search."""

    def ours(name: str, model: str) -> str:
        return number_cell(scores.wall_s(_problem(model), COUNTERPARTS[name]), ".0f")

    def theirs(seconds: float | None) -> str:
        return NO_MEMORY if seconds is None else f"{seconds:g}"

    budget = " or ".join(map(str, sorted({row.budget for row in scores.rows})))
    lines = [
        _line(name, [theirs(by_model[m]) for m in SIZES], [ours(name, m) for m in SIZES])
        for name, by_model in COSTS.items()
    ]
    caption = (
        f"Table 5: what a search of {budget} placements takes, median over the seeds; it may end "
        f"earlier. {CAPTION}, so it is the agent's time alone: nothing is measured."
    )
    return _beside("seconds", lines, caption)


def single_s(model: str, device: str) -> float:
    """Return the simulated seconds of a model of the suite on one device."""
    evaluator = open_problem(PAPER[_problem(model)[1]])
    return evaluator.evaluate(single_assignments(evaluator)[f"all on {device}"]).time_s


def _beside(
    what: str, lines: Sequence[Sequence[str]], caption: str, more: Sequence[str] = ()
) -> Table:
    """Return a table with two columns per model: the paper's numbers and ours."""
    heads = [f"{TITLES[model]}, {whose}" for model in SIZES for whose in ("paper", "ours")]
    return Table([what, *heads, *more], lines, caption)


def _line(name: str, theirs: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Return a line of such a table from the cells of each model."""
    return [name, *itertools.chain.from_iterable(zip(theirs, ours, strict=True))]


def _problem(model: str) -> ProblemKey:
    (name,) = (name for name, one in PAPER.items() if one.model == model)
    return SUITE, name


def _speedup(time_s: float, model: str) -> float:
    """Return the speed-up as the paper defines it."""
    return 1 - time_s / PAPER_SINGLES_S[model]["CPU"]


def _latency(time_s: float | None, model: str) -> str:
    if time_s is None:
        return NO_MEMORY
    if math.isnan(time_s):
        return NOTHING
    percent = round(100 * _speedup(time_s, model), 1) + 0.0  # which makes 0.0 of -0.0
    return f"{1e3 * time_s:.2f} ({percent:.1f} %)"


def _found(scores: Scores, placer: str, model: str) -> str:
    return _latency(median([row.time_s for row in scores.of(_problem(model), placer)]), model)


def _spread(scores: Scores, placer: str, model: str) -> str:
    """Return median and range of the speed-ups in percent."""
    found = [100 * _speedup(row.time_s, model) for row in scores.of(_problem(model), placer)]
    return interval_cell(median(found), min(found, default=0), max(found, default=0), ".1f")
