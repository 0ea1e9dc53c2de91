"""Settings shared by all searches, and how a resumed run restores them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring.config import MeasureConfig


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
    """For the simulator: desktop (the default), small_gpu, laptop, server or paper."""
    profile: str | None = None
    """For the simulator, in place of hardware: a file of `device-placement profile`."""
    schedule: str = "sequential"
    """For the simulator: sequential, concurrent, pipelined or max_load."""
    input_shapes: str = ""
    """Static shapes for a model of dynamic ones: NAME=1,3,224,224;NAME2=..."""
    budget: int = 300
    """Distinct placements to evaluate, singles included."""
    patience: int | None = None
    """Stop when so many distinct placements in a row brought no new best; by default never."""
    seed: int = 0
    """Seed of everything random."""
    rounds: int = 30
    """Samples of each contender in the comparison at the end; 0 leaves it out."""
    out: str = ""
    """Folder to write to; it must not exist yet. By default a new one under runs/."""
    resume: bool = False
    """Go on with the run in --out, with its settings; --budget and --patience may be raised."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models to place, each as `load_model` takes it."""
        return (self.model,)


Config = TypeVar("Config", bound=SearchConfig)
FREE = ("out", "resume", "budget", "patience", "rounds")  # may differ when a run is gone on with


def resume_config(kind: type[Config], out: str, **changes: Any) -> Config:
    """Load an earlier run's settings to resume it.

    Args:
        kind: of the command that made it.
        out: its folder.
        changes: of budget, patience and rounds.

    Raises:
        DevicePlacementError: when there is no such run, or it was made by another command.
    """
    saved = read_config(out)["settings"]
    if saved.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise DevicePlacementError(
            f"The run in {out!r} was made by another command or version; resume it with "
            "that, or begin a new run with another --out."
        )
    return kind(**{**saved, "out": out, "resume": True, **changes})


going_on = resume_config  # its name until 0.1


def check_going_on(config: SearchConfig) -> None:
    """Check that a run that is to be gone on with has these settings; a new one may have any.

    Raises:
        DevicePlacementError: when it has others, or as `resume_config`.
    """
    if not config.resume:
        return
    saved = dataclasses.asdict(resume_config(type(config), config.out))
    for name, given in dataclasses.asdict(config).items():
        if name not in FREE and given != saved[name]:
            raise DevicePlacementError(
                f"The run in {config.out!r} has {name}={saved[name]!r}, not {given!r}; leave the "
                "setting out (in Python: "
                f"resume_config({type(config).__name__}, {config.out!r})), or begin a new run with "
                "another --out."
            )


def read_config(out: str) -> dict[str, Any]:
    """The settings and the model's hash of an earlier run.

    Raises:
        DevicePlacementError: when its folder holds none that can be read.
    """
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
