"""Run of a search: its folder, evaluators, progress bar and the results of its models."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from device_placement.agents.runs.config import SearchConfig
from device_placement.agents.runs.folder_lock import is_unused, only_writer
from device_placement.agents.runs.recording import Budget, RecordingEvaluator, check_budget
from device_placement.agents.runs.resume import CONFIG, read_config, unusual_settings
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluation, Evaluator
from device_placement.envs.factory import make_evaluator
from device_placement.envs.failures import describe_failures, list_causes
from device_placement.envs.files import replaced
from device_placement.envs.measuring.cluster import ClusterError
from device_placement.envs.measuring.openvino_evaluator import (
    as_measuring,
    executor_of,
    machine_of,
)
from device_placement.envs.measuring.validation import claim_of
from device_placement.envs.models.loading import model_parts, parse_input_shapes
from device_placement.envs.models.side_by_side import JOINT, distinct_names
from device_placement.envs.placement import Placement
from device_placement.envs.untrusted import check_count


def evaluator_of(config: SearchConfig) -> Evaluator:
    """Make the evaluator that a search's settings name."""
    return make_evaluator(
        config.model,
        config.devices,
        coarsening=config.coarsening,
        max_groups=config.max_groups,
        evaluator=config.evaluator,
        input_shapes=parse_input_shapes(config.input_shapes),
        inputs=config.inputs or None,
        hardware=config.hardware,
        profile=config.profile,
        schedule=config.schedule,
        constraints=config.constraints,
        measuring=config,
    )


class Run:
    """Folder and progress bar of one search.

    The folder holds ``config.json`` (settings, machine, versions) and the files of `ModelRun`:
    directly for one model, in a subfolder per model for several. No other run can write to it
    until this one exits its ``with`` block.

    Args:
        config: the settings; `out` and `resume` determine the folder.
        label: prefix of the name of a new folder under ``runs/``.
        extra: placements in addition to the singles, instead of the settings' budget.
        shows_costs: whether an agent sees costs; then the profile is only for the agent, if
            placements are measured.
        budget: instead of a new one; its limit is kept.

    Raises:
        DevicePlacementError: when the folder exists and is not to be resumed, is of other models,
            or when another run writes to it, or when the models are to be placed on different
            devices.
    """

    def __init__(
        self,
        config: SearchConfig,
        label: str,
        extra: int | None = None,
        shows_costs: bool = False,
        budget: Budget | None = None,
    ) -> None:
        self.config = config
        self.names = short_names(config.models)
        profile = None if shows_costs and config.evaluator == "openvino" else config.profile
        made = [
            evaluator_of(dataclasses.replace(config, model=model, inputs=inputs, profile=profile))
            for model, inputs in zip(config.models, config.input_files, strict=True)
        ]
        _check_same_devices(dict(zip(self.names, made, strict=True)))
        singles = sum(len(one.devices) for one in made)
        limit = config.budget if extra is None else singles + extra
        check_budget(limit, singles, config.patience)
        self.budget = budget or Budget(limit, config.patience)
        self._bar: tqdm[Any] | None = None
        self.folder = self._folder(label, made)
        _make_folder(self.folder)
        with contextlib.ExitStack() as opened:
            opened.enter_context(only_writer(self.folder))
            self._begin(made)
            self.models = self._model_runs(made)
            self._opened = opened.pop_all()

    def _model_runs(self, made: Sequence[Evaluator]) -> tuple[ModelRun, ...]:
        alone = len(made) == 1
        return tuple(
            ModelRun(
                name,
                self.config,
                evaluator,
                self.folder if alone else self.folder / name,
                self.budget,
                self._show,
            )
            for name, evaluator in zip(self.names, made, strict=True)
        )

    def __enter__(self) -> Run:
        self._bar = tqdm(
            total=self.budget.limit, initial=self.budget.num_distinct, unit="placement"
        )
        return self

    def __exit__(self, _: object, error: object, *__: object) -> None:
        self._end_bar()
        if isinstance(error, ClusterError):
            error.args = (f"{error} Resume it with --resume --out {self.folder}",)
        for one in self.models:
            one.evaluator.close()
        self._opened.close()

    def moment(self) -> dict[str, Any]:
        """Return how far the run is, as plain data for `rewind`."""
        return {
            "asked": [
                [one.recorder.num_distinct, one.recorder.num_requests] for one in self.models
            ],
            "since_best": self.budget.num_since_best,
        }

    def rewind(self, moment: Mapping[str, Any] | None = None) -> None:
        """Rewind the run to a moment, or to its beginning, from which it is repeated.

        See `RecordingEvaluator.rewind`.

        Raises:
            ValueError: when the moment is none of this run.
        """
        asked = moment["asked"] if moment else [(0, 0)] * len(self.models)
        since_best = check_count(moment["since_best"]) if moment else 0
        for one, (distinct, requests) in zip(self.models, asked, strict=True):
            most = one.recorder.num_distinct
            one.recorder.rewind(check_count(distinct, most), check_count(requests))
        self.budget.num_since_best = since_best
        if self._bar is not None:
            distinct = self.budget.num_distinct
            self._bar.initial = self._bar.last_print_n = self._bar.n = distinct
            self._bar.refresh()

    def check_valid(self) -> None:
        """Check that each model has a valid placement.

        Raises:
            DevicePlacementError: when one has none.
        """
        for one in self.models:
            if not one.recorder.best:
                of = f" of {one.name}" if len(self.models) > 1 else ""
                raise DevicePlacementError(
                    f"None of the {one.recorder.num_distinct} placements{of} is valid. Their "
                    f"number by cause: {'; '.join(list_causes(one.recorder.failures))}"
                )

    def summary(self, interrupted: bool) -> str:
        """Close the progress bar; return what was done, where it is, and how to resume."""
        self._end_bar()
        done = f"{self.budget.num_distinct} placements evaluated; results in {self.folder}"
        if recalled := sum(one.recorder.num_recalled for one in self.models):
            done += (
                f"\n{recalled} of them were known from earlier runs and not measured again "
                f"(store {self.models[0].evaluator.store_path})"
            )
        if self.budget.out_of_patience:
            done += (
                f"\nStopped early: the last {self.budget.num_since_best} placements brought no new "
                f"best (--patience {self.budget.patience})"
            )
        for one in self.models:
            if one.evaluator.measures:
                executor = as_measuring(one.evaluator).executor
                of = f"{one.name}: " if len(self.models) > 1 else ""
                done += f"\n{of}Executor {executor.name}: {executor.reason}"
        for one in self.models:
            if failed := describe_failures(one.recorder.failures, one.recorder.num_distinct):
                done += f"\n{one.name}: {failed}" if len(self.models) > 1 else f"\n{failed}"
        if unverified := self._unverified():
            done += f"\nOutputs are not verified. {unverified}"
        if interrupted:
            repeated = unusual_settings(dataclasses.asdict(self.config), str(self.folder)).values()
            words = " ".join(["--resume", "--out", str(self.folder), *repeated])
            done += f"\nInterrupted; resume with {words}"
        return f"\n{done}"

    def _unverified(self) -> str:
        """Return why outputs could not be verified; empty if they were, or were not to be."""
        found = (one for model in self.models for one in model.recorder.record.values())
        return next((one.unverified for one in found if one.unverified), "")

    def _folder(self, label: str, made: Sequence[Evaluator]) -> Path:
        """Return the run's folder, after checking that it may be written to."""
        config = self.config
        stamp = time.strftime("%Y%m%d-%H%M%S")
        new = Path("runs") / f"{label}-{'+'.join(self.names)}-{stamp}-{os.getpid()}"
        folder = Path(config.out or new)
        found = _hash_of(made)
        if config.resume:
            earlier = read_config(config.out)
            if earlier["model_hash"] != found:
                raise DevicePlacementError(
                    f"The run in {str(folder)!r} is of a model with the hash "
                    f"{earlier['model_hash']}; the one in {config.model!r} now has {found}. Start "
                    "a new run with another --out."
                )
            if earlier["inputs"] != _given_inputs(made):
                raise DevicePlacementError(
                    f"The run in {str(folder)!r} has other input values than {config.inputs!r} "
                    "holds now. Give those it began with, or start a new run with another --out."
                )
            if config.on:
                _check_alike(config.out, earlier["machine"], machine_of(made[0]))
        else:
            _check_unused(folder)
        return folder

    def _begin(self, made: Sequence[Evaluator]) -> None:
        """Write the settings, once no other run can write to the folder."""
        if not self.config.resume:
            _check_unused(self.folder)  # another run may have used it in the meantime
        settings = dataclasses.asdict(self.config) | {"resume": False}
        content = {
            "settings": settings,
            "model_hash": _hash_of(made),
            "inputs": _given_inputs(made),
            "machine": machine_of(made[0]),
        }
        write_json(self.folder / CONFIG, content)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, _: Evaluation) -> None:
        if self._bar is not None:
            times = [one.recorder.best_s for one in self.models if one.recorder.best]
            best = ", ".join(f"{1e3 * time_s:.3f}" for time_s in times)
            self._bar.set_postfix_str(f"best {best} ms", refresh=False)
            self._bar.update()


KIND = ("processor", "cores", "openvino")  # of machines whose times can be mixed


def _check_alike(out: str, earlier: Mapping[str, Any], now: Mapping[str, str]) -> None:
    """Check that a cluster's target is like that of the run to resume."""
    before, after = ([one.get(name) for name in KIND] for one in (earlier, now))
    if before != after:
        raise DevicePlacementError(
            f"The run in {out!r} was measured on {before}; the target is {after} ({', '.join(KIND)}"
            "). Name one like the first with --target, or start a new run with another --out."
        )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter for a NUL in the name
        raise DevicePlacementError(
            f"Can't make the output folder {str(folder)!r}: {error}. Give another --out."
        ) from error


def _given_inputs(made: Sequence[Evaluator]) -> str:
    return ",".join(as_measuring(one).given_inputs if one.measures else "" for one in made)


def _hash_of(made: Sequence[Evaluator]) -> str:
    return ",".join(one.coarse.graph.model_hash for one in made)


def _check_unused(folder: Path) -> None:
    if not is_unused(folder):
        raise DevicePlacementError(
            f"The output folder {str(folder)!r} exists already; nothing was changed. Give another "
            "--out, or resume that run with --resume."
        )


def short_names(models: Sequence[str]) -> list[str]:
    """Return a unique name for each model, for its folder and its curves.

    >>> short_names(["resnet50", "mine/net.onnx", "other/net.xml", "generated:7"])
    ['resnet50', 'net', 'net-2', 'generated-7']
    """
    names = [JOINT.join(Path(part).stem for part in model_parts(model)) for model in models]
    return distinct_names([name.replace(":", "-") for name in names])  # Windows refuses colons


def _check_same_devices(evaluators: Mapping[str, Evaluator]) -> None:
    described = {name: ", ".join(map(str, one.devices)) for name, one in evaluators.items()}
    if len({one.devices for one in evaluators.values()}) > 1:
        several = "; ".join(f"{name} on {devices}" for name, devices in described.items())
        raise DevicePlacementError(
            f"Got {several}; one policy places all models on the same devices. Name them with "
            "--devices."
        )


class ModelRun:
    """Model of a run.

    Its folder holds ``evaluations.jsonl`` (one per line), ``best_placement.json`` (written
    whenever it improves) and, at the end, ``result.json``.

    Args:
        name: of the model, for display.
        config: the settings of the run.
        evaluator: of the model.
        folder: to write to; the run's folder if it has one model only.
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
        best_s = self.recorder.best_s
        self.save_placement(self.recorder.best, reference_s / best_s if best_s else math.nan)

    def save_placement(self, assignment: tuple[int, ...], speedup: float) -> None:
        """Write a placement as the result, with its speed-up over the reference."""
        coarse, devices = self.evaluator.coarse, self.evaluator.devices
        executor = executor_of(self.evaluator)
        placement = Placement.from_groups(coarse, devices, assignment, executor)
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
