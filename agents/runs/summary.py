"""Summary of a search: measure all contenders again in turns, print the table, save the result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from device_placement.agents.runs.run import ModelRun
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import (
    NAN,
    Evaluation,
    Evaluator,
    single_assignments,
)
from device_placement.envs.measuring.compare import compare, contenders, paired_ratio
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.openvino_evaluator import as_measuring
from device_placement.envs.rendering.text import printable

Row = dict[str, Any]


def finish(run: ModelRun, assignments: Mapping[str, list[int]], bound_s: float = NAN) -> str:
    """Compare the contenders, save the winner and ``result.json``, and return the table.

    The result is the fastest of the singles and the given placements, measured again, since
    the minimum of many noisy times is biased low.

    Args:
        run: the model's part of the run.
        assignments: (num_groups,) device numbers of the placements found, by name.
        bound_s: no placement is faster than this; NaN where nothing was proven.

    Raises:
        DevicePlacementError: when none of them is valid.
    """
    measured = run.evaluator.measures
    if measured:
        print("Measuring the contenders again, in turns ...\n")
    evaluations = measure_anew(run.evaluator, assignments, run.config.rounds)
    singles = single_assignments(run.evaluator)
    eligible = {**singles, **assignments}
    for name, assignment in eligible.items():
        known = run.evaluator.evaluate(assignment)
        if not known.valid:  # e.g. for its outputs, which are not checked again
            evaluations[name] = known
    rows = make_rows(evaluations, list(singles))
    valid = [name for name in eligible if evaluations[name].valid]
    if not valid:
        raise DevicePlacementError(
            f"None of the {run.recorder.num_distinct} placements is valid; the last one tried: "
            f"{evaluations[list(eligible)[-1]].error}"
        )
    winner = min(valid, key=lambda name: evaluations[name].time_s)
    reference_s = evaluations[list(singles)[run.evaluator.reference]].time_s
    run.save_placement(tuple(eligible[winner]), reference_s / evaluations[winner].time_s)
    run.write_json(
        "result.json",
        {
            "result": winner,
            "rows": rows,
            "bound_s": None if math.isnan(bound_s) else bound_s,
            "evaluated": {
                "distinct": run.recorder.num_distinct,
                "requests": run.recorder.num_requests,
                "budget": run.recorder.budget,
            },
            "settings": dataclasses.asdict(run.config),
            "machine": describe_machine(),
        },
    )
    return format_table(rows, winner, measured)


def measure_anew(
    evaluator: Evaluator, assignments: Mapping[str, list[int]], rounds: int
) -> dict[str, Evaluation]:
    """Evaluate each single, OpenVINO's automatic choices and the given placements."""
    if evaluator.measures:
        measuring = as_measuring(evaluator)
        return compare(measuring, contenders(measuring, assignments), rounds)
    entries = {**single_assignments(evaluator), **assignments}
    return {name: evaluator.evaluate(assignment) for name, assignment in entries.items()}


def make_rows(evaluations: Mapping[str, Evaluation], singles: list[str]) -> list[Row]:
    """Return rows for table and JSON; speed-ups are over the best single, round by round."""
    valid = [name for name in singles if evaluations[name].valid]
    best_single = min(valid, key=lambda name: evaluations[name].time_s, default=None)
    rows = []
    for name, evaluation in evaluations.items():
        row: Row = {"name": name, **evaluation.to_json()}
        if best_single is not None and evaluation.valid:
            ratio = paired_ratio(evaluations[best_single], evaluation)
            row["speedup"], row["speedup_interval"] = ratio
        rows.append(row)
    return rows


def format_table(rows: list[Row], winner: str, measured: bool = True) -> str:
    """Return the rows as text, with the result marked."""
    lines = [("placement", "median ms", "95 % interval", "subgraphs", "vs best single")]
    for row in rows:
        name = f"{row['name']}{' *' if row['name'] == winner else ''}"
        if row["error"]:
            reason = printable(str(row["error"]).splitlines()[0][:60])
            lines.append((name, "-", f"invalid: {reason}", "-", "-"))
            continue
        low, high = row["interval_s"]
        speedup = "-"  # where no single is valid
        if "speedup" in row:
            ratio_low, ratio_high = row["speedup_interval"]
            speedup = f"{row['speedup']:.3f}x ({ratio_low:.3f} - {ratio_high:.3f})"
        lines.append(
            (
                name,
                f"{1e3 * row['time_s']:.3f}",
                f"{1e3 * low:.3f} - {1e3 * high:.3f}",
                str(row["num_subgraphs"]),
                speedup,
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join(
        [
            text[0],
            "-" * len(text[0]),
            *text[1:],
            "",
            "* the result: the fastest of the singles and the placements found"
            + (", measured again in turns" if measured else ""),
        ]
    )
