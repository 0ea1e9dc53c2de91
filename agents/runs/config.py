"""Settings shared by all searches, and how a resumed run restores them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.measuring.config import MeasureConfig


@dataclass(frozen=True)
class SearchConfig(MeasureConfig):
    """Options shared by all searches."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("model",),
        "comparison": ("rounds",),
        "grouping": ("coarsening", "max_groups", "input_shapes"),
        "simulator": ("hardware", "profile", "schedule"),
        "measuring": ("inputs",),
    }

    model: str = "resnet50"
    """Bundled model (resnet50, inception_v3, bert_base, diamond) or path of a model file."""
    devices: str = "auto"
    """Devices, comma-separated, each NAME or NAME:KEY=VALUE;KEY=VALUE; auto: every one found. The
    first is the reference."""
    coarsening: str = "fusion"
    """How to group ops: fusion, colocation or none."""
    max_groups: int | None = None
    """Merge groups until at most this many remain."""
    evaluator: str = "openvino"
    """openvino (measure on this machine) or simulator (predict, also for absent devices)."""
    hardware: str = ""
    """Simulated machine: desktop (the default), small_gpu, laptop, server or paper."""
    profile: str | None = None
    """Simulate the machine described in a file by `device-placement profile`, in place of
    --hardware."""
    schedule: str = "sequential"
    """Simulated execution: sequential, concurrent, pipelined or max_load."""
    input_shapes: str = ""
    """Static shapes for a model with dynamic ones: NAME=1,3,224,224;NAME2=..."""
    inputs: str = ""
    """Values of the inputs: an .npz file with an array NAME for each, or with 0/NAME, 1/NAME, ...
    for several samples; default: invented."""
    budget: int = 300
    """Distinct placements to evaluate, including those on a single device."""
    patience: int | None = None
    """Stop after this many distinct placements without improvement; default: never."""
    seed: int = 0
    """Random seed."""
    rounds: int = 30
    """Samples of each placement in the final comparison; 0 skips it."""
    out: str = ""
    """Output folder, which must not exist yet; default: a new one under runs/."""
    resume: bool = False
    """Resume the run in --out with its settings; --budget and --patience may be raised."""

    @property
    def models(self) -> tuple[str, ...]:
        """The models to place, each as `load_model` takes it."""
        return (self.model,)

    @property
    def input_files(self) -> tuple[str, ...]:
        """The file of input values of each model; empty where they are invented."""
        return (self.inputs,)


Config = TypeVar("Config", bound=SearchConfig)
FREE = ("out", "resume", "budget", "patience", "rounds")  # may differ when a run is resumed


def resume_config(kind: type[Config], out: str, **changes: Any) -> Config:
    """Load an earlier run's settings to resume it.

    Args:
        kind: class of the settings, by command.
        out: folder of the run.
        changes: new values of budget, patience and rounds.

    Raises:
        DevicePlacementError: when the folder holds no run, or one of another command.
    """
    saved = read_config(out)["settings"]
    if saved.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise DevicePlacementError(
            f"The run in {out!r} was made by another command or version; resume it with "
            "that, or start a new run with another --out."
        )
    return kind(**{**saved, "out": out, "resume": True, **changes})


going_on = resume_config  # its name until 0.1


def check_going_on(config: SearchConfig) -> None:
    """Check that a run to resume has these settings; a new run may have any.

    Raises:
        DevicePlacementError: when they differ, or as `resume_config`.
    """
    if not config.resume:
        return
    saved = dataclasses.asdict(resume_config(type(config), config.out))
    for name, given in dataclasses.asdict(config).items():
        if name not in FREE and given != saved[name]:
            raise DevicePlacementError(
                f"The run in {config.out!r} has {name}={saved[name]!r}, not {given!r}; leave the "
                "setting out (in Python: "
                f"resume_config({type(config).__name__}, {config.out!r})), or start a new run with "
                "another --out."
            )


def read_config(out: str) -> dict[str, Any]:
    """Return the settings, the model's hash and the inputs' key of an earlier run.

    Raises:
        DevicePlacementError: when the folder holds none that can be read.
    """
    path = Path(out) / "config.json"
    if not out or not path.is_file():
        raise DevicePlacementError(
            f"--resume needs --out with the folder of an earlier run; got {out!r}, which has no "
            "config.json."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        keys = {name: str(content[name]) for name in ("model_hash", "inputs")}
        return {"settings": dict(content["settings"]), **keys}
    except (ValueError, KeyError, TypeError) as error:
        raise DevicePlacementError(
            f"Can't read {str(path)!r}: {type(error).__name__} {error}. Start a new run with "
            "another --out."
        ) from error
