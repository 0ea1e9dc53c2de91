"""Report of an optimization: RESULT.md, result.json and a picture."""

from __future__ import annotations

import importlib.util
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device_placement.agents.optimizing.as_it_is import AsItIs
from device_placement.agents.optimizing.confirm import BY_HETERO, Confirmed
from device_placement.agents.optimizing.deployment import Check
from device_placement.agents.optimizing.verdict import Verdict
from device_placement.agents.runs.run import write_json
from device_placement.envs.evaluation import Evaluation
from device_placement.envs.executors import DATAFLOW
from device_placement.envs.files import replaced
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.rendering.text import align, count

WIDEST = 100  # characters of an error in a table


@dataclass(frozen=True)
class Optimized:
    """Result of an optimization."""

    folder: Path
    verdict: Verdict
    as_it_is: AsItIs
    confirmed: Confirmed | None = None  # None: it stopped after the verdict
    check: Check | None = None  # of the written files
    num_placements: int = 0  # that were measured
    ended: str = ""  # why the search ended; empty: there was none
    seconds: float = 0.0

    @property
    def speedup(self) -> float:
        """Speed over the fastest of what OpenVINO does by itself; NaN after a verdict alone."""
        return self._gain()[0]

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the speed-up."""
        return self._gain()[1]

    def _gain(self) -> tuple[float, tuple[float, float]]:
        found = self.confirmed
        if found is None:
            return math.nan, (math.nan, math.nan)
        rivals = {
            name: gain for name, gain in found.gains.items() if name in self.as_it_is.evaluations
        }
        if not found.found or not rivals:
            return 1.0, (1.0, 1.0)
        return min(rivals.values(), key=lambda gain: gain[0])

    @property
    def headline(self) -> str:
        """The result in a sentence or two."""
        found = self.confirmed
        if found is None:
            return self.verdict.summary
        if not found.found:
            return (
                "No placement beats what OpenVINO does by itself by more than the noise of the "
                f"measurement. Use {found.winner}: "
                f"{1e3 * found.evaluations[found.winner].time_s:.3f} ms."
            )
        rivals = [name for name in found.gains if name in self.as_it_is.evaluations]
        nearest = min(rivals, key=lambda name: found.gains[name][0])
        (low, high), time_s = self.interval, found.evaluations[found.winner].time_s
        return (
            f"{self.speedup:.3f}x ({low:.3f} - {high:.3f}) the speed of {nearest}, the fastest of "
            f"what OpenVINO does by itself: {1e3 * time_s:.3f} ms, by {found.how}."
        )

    @property
    def against_verdict(self) -> str:
        """How far the verdict was from what was found; empty without a search."""
        predicted = self.verdict.of_executor
        if not self.ended:
            return ""
        low, high = 1 + predicted.low, 1 + predicted.high
        return (
            f"predicted at most {1 + predicted.gain:.2f}x ({low:.2f} to {high:.2f}), found "
            f"{self.speedup:.2f}x"
        )


def table(confirmed: Confirmed) -> list[str]:
    """Return the compared ways as lines, the winner marked."""
    rows = [("way", "median ms", "95 % interval", "subgraphs", "winner's speed over it")]
    for name, one in confirmed.evaluations.items():
        mark = " *" if name == confirmed.winner else ""
        if not one.valid:
            rows.append((f"{name}{mark}", "-", one.error.splitlines()[0][:WIDEST], "-", "-"))
            continue
        ratio, (low, high) = confirmed.gains.get(name, (1.0, (1.0, 1.0)))
        gain = f"{ratio:.3f}x ({low:.3f} - {high:.3f})" if name in confirmed.gains else "-"
        interval = f"{1e3 * one.interval_s[0]:.3f} - {1e3 * one.interval_s[1]:.3f}"
        rows.append(
            (f"{name}{mark}", f"{1e3 * one.time_s:.3f}", interval, str(one.num_subgraphs), gain)
        )
    return align(rows)


def write_report(
    result: Optimized, evaluator: OpenVINOEvaluator, settings: Mapping[str, Any]
) -> None:
    """Write RESULT.md, result.json and, where matplotlib is installed, a picture.

    Args:
        result: to report.
        evaluator: of the problem.
        settings: of the command.

    Raises:
        OSError: when the disk is full.
    """
    pictures = _draw(result, evaluator)
    write_json(result.folder / "result.json", _content(result, evaluator, settings))
    with replaced(result.folder / "RESULT.md") as draft:
        draft.write_text(_markdown(result, evaluator, pictures), encoding="utf-8")


def _content(
    result: Optimized, evaluator: OpenVINOEvaluator, settings: Mapping[str, Any]
) -> dict[str, Any]:
    found, check = result.confirmed, result.check
    content: dict[str, Any] = {
        "headline": result.headline,
        "verdict": result.verdict.to_json(),
        "as_it_is": {n: one.to_json() for n, one in result.as_it_is.evaluations.items()},
        "placements_measured": result.num_placements,
        "search_ended": result.ended,
        "against_verdict": result.against_verdict,
        "seconds": round(result.seconds, 1),
        "settings": dict(settings),
        "machine": evaluator.target.describe_machine(),
    }
    if found is not None:
        content |= {
            "winner": found.winner,
            "how": found.how,
            "device_name": found.device_name,
            "speedup": result.speedup,
            "speedup_interval": list(result.interval),
            "rows": [
                {"name": name, **one.to_json(), "winners_speedup": _pair(found, name)}
                for name, one in found.evaluations.items()
            ],
        }
    if check is not None:
        content["check"] = {
            "median_s": check.median_s,
            "output_error": check.output_error,
            "allowed_error": check.allowed_error,
            "outputs_hold": check.outputs_hold,
        }
    return content


def _pair(found: Confirmed, name: str) -> list[Any]:
    if name not in found.gains:
        return [1.0, [1.0, 1.0]]
    ratio, interval = found.gains[name]
    return [ratio, list(interval)]


def _markdown(result: Optimized, evaluator: OpenVINOEvaluator, pictures: list[str]) -> str:
    found = result.confirmed
    lines = [f"# {evaluator.coarse.graph.name}", "", result.headline, ""]
    if found is not None:
        lines += ["```", *table(found), "```", "", "\\* the result; all ran in turns.", ""]
    lines += ["## Verdict before the search", "", "```", result.verdict.describe(), "```", ""]
    lines += ["## What was tried", "", *_tried(result, evaluator), ""]
    if found is not None:
        lines += ["## Run it", "", *_how(result, found), ""]
    lines += [f"![{name}]({name})" for name in pictures]
    described = evaluator.target.describe_machine()
    machine = ", ".join(f"{key} {value}" for key, value in described.items())
    return "\n".join([*lines, "", "## Machine", "", machine, ""])


def _tried(result: Optimized, evaluator: OpenVINOEvaluator) -> list[str]:
    devices = ", ".join(f"`{device}`" for device in evaluator.devices)
    config = evaluator.config
    lines = [
        f"- devices {devices}; executor {evaluator.executor.name}: {evaluator.executor.reason}",
        f"- {config.objective} of {count(evaluator.coarse.num_groups, 'group')} of ops; "
        f"{count(result.num_placements, 'placement')} measured in "
        f"{result.seconds / 60:.1f} minutes"
        + (f"; the search ended as {result.ended}" if result.ended else "; no search"),
    ]
    if result.against_verdict:
        lines.append(f"- {result.against_verdict}")
    if config.max_output_error is not None:
        lines.append(f"- outputs may differ by {config.max_output_error:g} (relative L2)")
    rows = [
        f"{name} {1e3 * one.time_s:.3f} ms" if one.valid else f"{name} does not run"
        for name, one in result.as_it_is.evaluations.items()
    ]
    return [*lines, f"- as it is: {'; '.join(rows)}"]


def _how(result: Optimized, found: Confirmed) -> list[str]:
    folder = shlex.quote(str(result.folder))
    lines = [
        f"- Python: `python {folder}/run.py`, or `import run` from there; needs only openvino and "
        "numpy",
        f"- C++: `cmake -S {folder} -B {folder}/build && cmake --build {folder}/build`, then "
        f"`{folder}/build/run {folder}`; it compiles for `{found.plain_device}`",
    ]
    if found.how == DATAFLOW:
        lines.append("- `dataflow.py` is the executor, `run.json` has the regions that it runs")
    if found.assignment:
        lines.append(
            "- `affinities.json` has the device of each op of `model.xml` by its friendly name; "
            "`placement.json` is the same for `device-placement validate`"
        )
    if found.how == DATAFLOW and not found.hetero_wins and BY_HETERO in found.evaluations:
        lines.append(
            "- OpenVINO's HETERO runs the same placement in turn and gains nothing by it, so the "
            "C++ program runs OpenVINO's own way"
        )
    check = result.check
    if check is not None:
        error = "can't be compared"
        if check.output_error is not None:
            error = f"differ by {check.output_error:.3g} (relative L2)"
            if check.allowed_error is not None:
                error += f", {check.allowed_error:.3g} is allowed"
        lines.append(
            f"- checked in a process of its own: {1e3 * check.median_s:.3f} ms; the outputs {error}"
        )
    return lines


def _draw(result: Optimized, evaluator: OpenVINOEvaluator) -> list[str]:
    """Draw the placement, and under dataflow its timeline; return the names of the pictures."""
    found = result.confirmed
    if found is None or not found.found or not importlib.util.find_spec("matplotlib"):
        return []
    from matplotlib import image

    from device_placement.envs.rendering.graph import render_picture
    from device_placement.envs.rendering.timeline import draw_timeline, region_events

    names, one = [device.name for device in evaluator.devices], found.evaluations[found.winner]
    pixels = render_picture(
        evaluator.coarse, names, found.assignment, one.time_s, one.num_subgraphs
    )
    with replaced(result.folder / "placement.png") as draft:
        image.imsave(draft, pixels, format="png")
    if found.how != DATAFLOW:
        return ["placement.png"]
    runs = evaluator.timeline(found.assignment)
    title = f"{evaluator.coarse.graph.name}: {count(len(runs), 'region')}, measured"
    with replaced(result.folder / "timeline.png") as draft:
        picture = draw_timeline(region_events(runs, names), names, title)
        picture.savefig(draft, format="png", dpi=90)
    return ["placement.png", "timeline.png"]


def describe_as_it_is(as_it_is: AsItIs) -> list[str]:
    """Return the times of what OpenVINO does by itself as lines."""
    rows = [("as it is", "median ms", "95 % interval")]
    for name, one in as_it_is.evaluations.items():
        rows.append((name, *_time_of(one)))
    return align(rows, right=(1,))


def _time_of(one: Evaluation) -> tuple[str, str]:
    if not one.valid:
        return "-", one.error.splitlines()[0][:WIDEST]
    low, high = one.interval_s
    return f"{1e3 * one.time_s:.3f}", f"{1e3 * low:.3f} - {1e3 * high:.3f}"
