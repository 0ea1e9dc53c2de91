"""What a run keeps of one of its models: the record, and the files with the results."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from device_placement.agents.budget import Budget
from device_placement.agents.recording import RecordingEvaluator
from device_placement.agents.settings import SearchConfig
from device_placement.envs.execution.evaluation import Evaluation, Evaluator
from device_placement.envs.execution.validation import claim_of
from device_placement.envs.files import replaced
from device_placement.envs.placement import Placement


class ModelRun:
    """One model of a run.

    Its folder holds ``evaluations.jsonl`` (one evaluation a line), ``best_placement.json`` (written
    whenever it improves) and, at the end, ``result.json``.

    Args:
        name: of the model, as it is shown.
        config: the settings of the run.
        evaluator: of the model.
        folder: to write to; that of the run where it has one model only.
        budget: of the run.
        on_new: called after each distinct evaluation.
    """

    def __init__(
        self,
        name: str,
        config: SearchConfig,
        evaluator: Evaluator,
        folder: Path,
        budget: Budget,
        on_new: Callable[[Evaluation], None],
    ) -> None:
        self.name, self.config, self.evaluator, self.folder = name, config, evaluator, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.recorder = RecordingEvaluator(
            evaluator,
            budget,
            folder / "evaluations.jsonl",
            on_new=on_new,
            on_best=self.save_best,
        )

    def save_best(self) -> None:
        """Write the best placement so far."""
        reference = [self.evaluator.reference] * self.evaluator.coarse.num_groups
        known = self.recorder.known(reference)
        reference_s = known.time_s if known is not None else math.nan
        self.save_placement(self.recorder.best, reference_s / self.recorder.best_s)

    def save_placement(self, assignment: tuple[int, ...], speedup: float) -> None:
        """Write a placement as the result, with its speed-up over the reference."""
        coarse, devices = self.evaluator.coarse, self.evaluator.devices
        placement = Placement.from_groups(coarse, devices, assignment)
        if not math.isnan(speedup):
            claim = claim_of(self.evaluator, self.evaluator.reference, speedup)
            placement = dataclasses.replace(placement, claim=claim)
        placement.save(self.folder / "best_placement.json")

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file into the folder, replacing it in one step."""
        write_json(self.folder / name, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, replacing it in one step."""
    with replaced(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
