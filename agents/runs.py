"""One search: its settings, its folder, its progress and the table at its end."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from device_placement.agents.recording import RecordingEvaluator, check_budget
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.execution.evaluation import Evaluation, Evaluator
from device_placement.envs.execution.factory import make_evaluator
from device_placement.envs.execution.machine import describe_machine
from device_placement.envs.execution.settings import MeasureConfig, measure_options
from device_placement.envs.execution.validation import claim_of
from device_placement.envs.files import replaced
from device_placement.envs.models import parse_input_shapes
from device_placement.envs.placement import Placement


@dataclass(frozen=True)
class SearchConfig(MeasureConfig):
    """What every search for a placement is told."""

    model: str = "resnet50"
    """A bundled model (resnet50, inception_v3, bert_base, diamond) or the path of a model file."""
    devices: str = "auto"
    """Devices, comma-separated, as NAME or NAME:KEY=VALUE;KEY=VALUE; the first is the reference."""
    coarsening: str = "fusion"
    """How ops become groups: fusion, colocation or none."""
    max_groups: int | None = None
    """The most groups to make."""
    evaluator: str = "openvino"
    """openvino measures; simulator predicts, for devices that need not be here."""
    hardware: str = ""
    """For the simulator: desktop (the default), paper, laptop or server."""
    profile: str | None = None
    """For the simulator, in place of hardware: a file of `device-placement profile`."""
    schedule: str = "sequential"
    """For the simulator: sequential, concurrent, pipelined or max_load."""
    input_shapes: str = ""
    """Static shapes for a model of dynamic ones: NAME=1,3,224,224;NAME2=..."""
    budget: int = 300
    """Distinct placements to evaluate, singles included."""
    seed: int = 0
    """Seed of everything random."""
    rounds: int = 30
    """Samples of each contender in the comparison at the end; 0 leaves it out."""
    out: str = ""
    """Folder to write to; it must not exist yet. By default a new one under runs/."""
    resume: bool = False
    """Go on with the run in --out, with its settings; --budget may be raised."""


Config = TypeVar("Config", bound=SearchConfig)


def resumed(config: Config) -> Config:
    """The settings of the run to go on with, or the given ones when it is a new run.

    Raises:
        DevicePlacementError: when there is no such run, or it has other settings.
    """
    if not config.resume:
        return config
    saved = _read_config(config.out)["settings"]
    default = type(config)()
    if saved.keys() != dataclasses.asdict(default).keys():
        raise DevicePlacementError(
            f"The run in {config.out!r} was made by another command or version; resume it with "
            "that, or begin a new run with another --out."
        )
    for name in ("out", "resume", "budget", "rounds"):
        given = getattr(config, name)
        if given != getattr(default, name):
            saved[name] = given
    for name, value in saved.items():
        given = getattr(config, name)
        if given not in (getattr(default, name), value):
            raise DevicePlacementError(
                f"The run in {config.out!r} has {name}={value!r}, not {given!r}; leave the setting "
                "out, or begin a new run with another --out."
            )
    return type(config)(**saved)


def _read_config(out: str) -> dict[str, Any]:
    path = Path(out) / "config.json"
    if not out or not path.is_file():
        raise DevicePlacementError(
            f"--resume needs --out with the folder of an earlier run; got {out!r}, which has no "
            "config.json."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"settings": dict(content["settings"]), "model_hash": str(content["model_hash"])}
    except (ValueError, KeyError, TypeError) as error:
        raise DevicePlacementError(
            f"Can't read {str(path)!r}: {type(error).__name__} {error}. Begin a new run with "
            "another --out."
        ) from error


def evaluator_of(config: SearchConfig) -> Evaluator:
    """The evaluator that a search was told to use."""
    return make_evaluator(
        config.model,
        config.devices,
        coarsening=config.coarsening,
        max_groups=config.max_groups,
        evaluator=config.evaluator,
        input_shapes=parse_input_shapes(config.input_shapes),
        hardware=config.hardware,
        profile=config.profile,
        schedule=config.schedule,
        **measure_options(config),
    )


class Run:
    """The folder of one search, and its progress bar.

    The folder holds ``config.json`` (settings, machine, versions), ``evaluations.jsonl`` (one
    evaluation a line), ``best_placement.json`` (written whenever it improves) and, at the
    end, ``result.json``.

    Args:
        config: the settings; `out` and `resume` say which folder.
        label: begins the name of a new folder under ``runs/``.

    Raises:
        DevicePlacementError: when the folder exists and is not to be resumed, or is of
            another model.
    """

    def __init__(self, config: SearchConfig, label: str) -> None:
        self.config = config
        self.evaluator = evaluator_of(config)
        check_budget(config.budget, len(self.evaluator.devices))
        self.folder = self._open_folder(label)
        self.recorder = RecordingEvaluator(
            self.evaluator,
            config.budget,
            self.folder / "evaluations.jsonl",
            on_new=self._show,
            on_best=self.save_best,
        )
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Run:
        self._bar = tqdm(
            total=self.config.budget, initial=self.recorder.num_distinct, unit="placement"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._end_bar()
        getattr(self.evaluator, "close", lambda: None)()

    def summary(self, interrupted: bool) -> str:
        """What was done, where it lies, and how to go on after Ctrl-C; ends the progress bar."""
        self._end_bar()
        done = f"{self.recorder.num_distinct} placements evaluated; results in {self.folder}"
        if self.recorder.num_recalled:
            done += (
                f"\n{self.recorder.num_recalled} of them were known from earlier runs and not "
                f"measured again (store {getattr(self.evaluator, 'store_path', '')})"
            )
        more = f"\nInterrupted; go on with --resume --out {self.folder}" if interrupted else ""
        return f"\n{done}{more}"

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
        with replaced(self.folder / name) as draft:
            draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _open_folder(self, label: str) -> Path:
        stem = Path(self.config.model).stem
        stamp = time.strftime("%Y%m%d-%H%M%S")
        folder = Path(self.config.out or Path("runs") / f"{label}-{stem}-{stamp}-{os.getpid()}")
        found = self.evaluator.coarse.graph.model_hash
        if self.config.resume:
            expected = _read_config(self.config.out)["model_hash"]
            if expected != found:
                raise DevicePlacementError(
                    f"The run in {str(folder)!r} is of a model with the hash {expected}; the one "
                    f"in {self.config.model!r} now has {found}. Begin a new run with another --out."
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DevicePlacementError(
                f"The output folder {str(folder)!r} exists already; nothing was changed. Give "
                "another --out, or go on with that run by --resume."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        settings = dataclasses.asdict(self.config) | {"resume": False}
        content = {"settings": settings, "model_hash": found, "machine": describe_machine()}
        self.write_json("config.json", content)
        return folder

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self, evaluation: Evaluation) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"best {1e3 * self.recorder.best_s:.3f} ms", refresh=False)
            self._bar.update()
