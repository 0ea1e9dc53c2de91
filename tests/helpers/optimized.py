"""Results of an optimization that are written by hand, on a real model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from device_placement.agents.optimizing.as_it_is import (
    AsItIs,
    entries_as_they_are,
    owners_of,
)
from device_placement.agents.optimizing.confirm import FOUND, OPENVINO, Confirmed
from device_placement.agents.optimizing.deployment import deploy
from device_placement.envs import OpenVINOEvaluator
from device_placement.envs.evaluation import Evaluation, single_assignments
from device_placement.envs.measuring.compare import paired_ratio

MIXED = (0, 1, 0, 0)  # of the bundled model diamond


def timed(time_s: float, spread: float = 0.01) -> Evaluation:
    """Nine samples around a time."""
    samples = tuple(time_s * (1 + spread * (number - 4) / 4) for number in range(9))
    return Evaluation(time_s, samples, (samples[1], samples[-2]), num_subgraphs=1)


def as_it_is(evaluator: OpenVINOEvaluator, **times_s: float) -> AsItIs:
    """All ways take a second, but for those whose names hold a word."""
    listed = entries_as_they_are(evaluator)
    evaluations = {one.name: timed(1.0) for one in listed}
    for word, time_s in times_s.items():
        evaluations |= {name: timed(time_s) for name in evaluations if word in name}
    singles = tuple(single_assignments(evaluator))
    entries = {one.name: one.entry for one in listed if one.entry and one.name not in singles}
    return AsItIs(entries, evaluations, singles, owners_of(evaluator))


def won(how: str, assignment: Sequence[int] = MIXED, device_name: str = "") -> Confirmed:
    """A winner that takes half as long as the best single."""
    name = FOUND if how != OPENVINO else "OpenVINO AUTO"
    evaluations = {"all on CPU": timed(1.0), name: timed(0.5)}
    hetero = "HETERO:CPU,CPU_F32"
    return Confirmed(
        name,
        how,
        tuple(assignment),
        hetero if how == "hetero" else device_name,
        uses_file=False,
        evaluations=evaluations,
        gains={"all on CPU": paired_ratio(evaluations["all on CPU"], evaluations[name])},
        own_device="AUTO:CPU",
        hetero_name=hetero,
        hetero_wins=how == "hetero",
    )


def deployed(folder: Path, evaluator: OpenVINOEvaluator, found: Confirmed) -> Path:
    """The folder with the files of a result."""
    folder.mkdir(exist_ok=True)
    deploy(folder, evaluator, found, None, 0.5)
    return folder
