"""Summary of a search: measure all contenders again in turns, print the table, save the result."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from device_placement.agents.runs.run import ModelRun
from device_placement.envs.errors import DevicePlacementError, printable
from device_placement.envs.evaluation import (
    NAN,
    Evaluation,
    Evaluator,
    single_assignments,
)
from device_placement.envs.executors import DATAFLOW
from device_placement.envs.failures import group_failures, list_causes
from device_placement.envs.files import replaced
from device_placement.envs.measuring.compare import (
    ALL_CORES,
    compare,
    contenders,
    file_name,
    paired_ratio,
    slower_than_file,
    whole_model_assignments,
)
from device_placement.envs.measuring.openvino_evaluator import as_measuring, executor_of, machine_of
from device_placement.envs.rendering.text import count

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
    evaluations = measure_again(run.evaluator, assignments, run.config.rounds)
    singles = single_assignments(run.evaluator)
    eligible = {**singles, **assignments}
    for name, assignment in eligible.items():
        known = run.evaluator.evaluate(assignment)
        if not known.valid:  # e.g. for its outputs, which are not checked again
            evaluations[name] = known
    rows = make_rows(evaluations, list(singles))
    warnings = file_warnings(run.evaluator, evaluations, run.config.rounds)
    valid = [name for name in eligible if evaluations[name].valid]
    if not valid:
        now = {tuple(one): evaluations[name] for name, one in eligible.items()}
        causes = group_failures({**run.recorder.record, **now})
        raise DevicePlacementError(
            f"None of the {run.recorder.num_distinct} placements is valid. Their number by cause: "
            f"{'; '.join(list_causes(causes))}"
        )
    winner = min(valid, key=lambda name: evaluations[name].time_s)
    reference_s = evaluations[list(singles)[run.evaluator.reference]].time_s
    run.save_placement(tuple(eligible[winner]), reference_s / evaluations[winner].time_s)
    timeline = _save_timeline(run, eligible[winner], winner)
    run.write_json(
        "result.json",
        {
            "result": winner,
            "rows": rows,
            "warnings": warnings,
            "bound_s": None if math.isnan(bound_s) else bound_s,
            "evaluated": {
                "distinct": run.recorder.num_distinct,
                "requests": run.recorder.num_requests,
                "budget": run.recorder.budget,
            },
            "timeline": timeline,
            "failures": [cause.to_json() for cause in run.recorder.failures],
            "settings": dataclasses.asdict(run.config),
            "machine": machine_of(run.evaluator),
        },
    )
    names = [file_name(device) for device in run.evaluator.devices]
    table = format_table(without_slower(rows, names), winner, measured)
    beside = [f"\n{one}" for one in beside_all_cores(evaluations, winner)]
    return "\n".join([table, *beside, *(f"\nWarning: {one}" for one in warnings)])


def beside_all_cores(evaluations: Mapping[str, Evaluation], winner: str) -> list[str]:
    """Return a sentence that compares the result with all cores, if the devices share them out."""
    everything = evaluations.get(ALL_CORES)
    if everything is None or not everything.valid:
        return []
    ratio, (low, high) = paired_ratio(everything, evaluations[winner])
    verdict = "faster than" if low > 1 else "slower than" if high < 1 else "as fast as"
    return [
        f"The result is {verdict} {ALL_CORES}, which takes {ratio:.2f} ({low:.2f} - {high:.2f}) "
        "times as long. These devices are parts of one processor; a second kind of device, such "
        "as a GPU or an NPU, would add its speed to that of all cores."
    ]


def _save_timeline(run: ModelRun, assignment: Sequence[int], name: str) -> list[Row]:
    """Return when each region of a placement ran, and draw it where matplotlib is installed.

    There is none for the executor ``hetero``, and for a simulated placement.
    """
    if executor_of(run.evaluator) != DATAFLOW or not run.evaluator.measures:
        return []
    measuring = as_measuring(run.evaluator)
    runs = measuring.timeline(assignment)
    if importlib.util.find_spec("matplotlib"):
        from device_placement.envs.rendering.timeline import draw_timeline, region_events

        devices = [device.name for device in measuring.devices]
        title = f"{run.name}, {name}: {count(len(runs), 'region')}, measured"
        with replaced(run.folder / "timeline.png") as draft:
            picture = draw_timeline(region_events(runs, devices), devices, title)
            picture.savefig(draft, format="png", dpi=90)
    return [one._asdict() for one in runs]


def file_warnings(
    evaluator: Evaluator, evaluations: Mapping[str, Evaluation], rounds: int
) -> list[str]:
    """Return a text for each device on which the model's file is faster than the loaded model."""
    if not evaluator.measures:
        return []
    slower = slower_than_file(as_measuring(evaluator), evaluations, rounds)
    return [
        f"On {device} the model as load_model() returns it takes {ratio:.2f} ({low:.2f} - "
        f"{high:.2f}) times as long as the file as it is. Compile the file itself if "
        "its row is the fastest."
        for device, (ratio, (low, high)) in slower.items()
    ]


def without_slower(rows: list[Row], names: Sequence[str]) -> list[Row]:
    """Return the rows without the named ones, except for the fastest of these."""
    named = [row for row in rows if row["name"] in names]
    best = min(named, key=lambda row: (bool(row["error"]), row["time_s"] or 0.0), default=None)
    return [row for row in rows if row["name"] not in names or row is best]


def measure_again(
    evaluator: Evaluator, assignments: Mapping[str, list[int]], rounds: int
) -> dict[str, Evaluation]:
    """Evaluate each single, whole models on devices of their own, and the given placements.

    Where they are measured, also OpenVINO's own choices and the model's file.
    """
    if evaluator.measures:
        measuring = as_measuring(evaluator)
        return compare(measuring, contenders(measuring, assignments), rounds)
    whole = whole_model_assignments(evaluator.coarse)
    entries = {**single_assignments(evaluator), **whole, **assignments}
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
