"""Resume a run: restore its settings, except those that a file from elsewhere may not set."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from device_placement.agents.presets.overrides import check_file_overrides, parse_overrides
from device_placement.agents.runs.config import SearchConfig
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DevicePlacementError, printable
from device_placement.envs.untrusted import (
    check_file_devices,
    check_types,
    read_json,
    reading,
)

Config = TypeVar("Config", bound=SearchConfig)
CONFIG = "config.json"  # in the folder of a run
CLUSTER = ("on", "tls_ca_file", "tls_cert", "tls_key")
ADVICE = "start a new run with another --out."
# may differ when a run is resumed
FREE = ("out", "resume", "budget", "patience", "rounds", "minutes", "verdict", *CLUSTER)


def resume_config(
    kind: type[Config], out: str, *, trusted: SearchConfig | None = None, **changes: Any
) -> Config:
    """Load an earlier run's settings to resume it.

    Args:
        kind: class of the settings, by command.
        out: folder of the run.
        trusted: settings that the user gave; what a file may not set must be equal in them.
        changes: new values of budget, patience and rounds; also settings that a file may not set,
            repeated.

    Raises:
        DevicePlacementError: when the folder holds no run, or one of another command, or its file
            has a setting that it may not set.
    """
    saved = read_config(out)["settings"]
    if saved.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise DevicePlacementError(
            f"The run in {out!r} was made by another command or version; resume it with "
            "that, or start a new run with another --out."
        )
    repeated = {**({} if trusted is None else dataclasses.asdict(trusted)), **changes}
    with reading(Path(out) / CONFIG, "the settings of a run", ADVICE):
        check_types("setting", saved, kind)
        for name, option in unusual_settings(saved, out).items():
            if name == "on" and repeated.get(name):
                continue  # a scheduler may have moved
            if repeated.get(name) != saved[name]:
                raise DevicePlacementError(
                    f"It sets {printable(option)}, which could write files, take all memory or "
                    "run code. If you trust it, repeat that: --resume --out "
                    f"{out} {printable(option)}"
                )
        return kind(**{**saved, "out": out, "resume": True, **changes})


def unusual_settings(settings: Mapping[str, Any], source: str) -> dict[str, str]:
    """Return the settings that a file may not set, each as it is written on the command line.

    Args:
        settings: of a run, by name.
        source: their file, for messages.

    >>> unusual_settings({"devices": "CPU", "store": "/tmp/mine.sqlite"}, "runs/1")
    {'store': '--store /tmp/mine.sqlite'}
    """
    checks: dict[str, Callable[[Any], bool]] = {
        "store": lambda path: path in (None, "none", "auto"),
        "on": lambda address: address == "",  # a scheduler can run code here
        "devices": lambda text: _passes(lambda: check_file_devices(_named(text), source)),
        "override": lambda text: _passes(
            lambda: check_file_overrides(parse_overrides(text), source)
        ),
    }
    return {
        name: f"--{name} {shlex.quote(str(settings[name]))}"
        for name, usual in checks.items()
        if name in settings and not usual(settings[name])
    }


def _named(devices: str) -> tuple[Device, ...]:
    return () if devices == "auto" else parse_devices(devices)


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except DevicePlacementError:
        return False
    return True


going_on = resume_config  # its name until 0.1


def check_resumed_settings(config: SearchConfig) -> None:
    """Check that a run to resume has these settings; a new run may have any.

    Raises:
        DevicePlacementError: when they differ, or as `resume_config`.
    """
    if not config.resume:
        return
    saved = dataclasses.asdict(resume_config(type(config), config.out, trusted=config))
    if bool(saved["on"]) != bool(config.on):
        raise DevicePlacementError(
            f"The run in {config.out!r} was measured {_where(saved['on'])}, and this command "
            f"measures {_where(config.on)}; times of two machines can't be mixed. Start a new run "
            "with another --out."
        )
    for name, given in dataclasses.asdict(config).items():
        if name not in FREE and given != saved[name]:
            raise DevicePlacementError(
                f"The run in {config.out!r} has {name}={saved[name]!r}, not {given!r}; leave the "
                "setting out (in Python: "
                f"resume_config({type(config).__name__}, {config.out!r})), or start a new run with "
                "another --out."
            )


def _where(on: str) -> str:
    return f"on the cluster at {on}" if on else "on this machine"


def read_config(out: str) -> dict[str, Any]:
    """Return the settings, the machine, the model's hash and the inputs' key of an earlier run.

    Raises:
        DevicePlacementError: when the folder holds none that can be read.
    """
    path = Path(out) / CONFIG
    if not out or not path.is_file():
        raise DevicePlacementError(
            f"--resume needs --out with the folder of an earlier run; got {out!r}, which has no "
            f"{CONFIG}."
        )
    with reading(path, "the settings of a run", ADVICE):
        content = read_json(path)
        keys = {name: str(content[name]) for name in ("model_hash", "inputs")}
        machine = dict(content.get("machine", {}))
        return {"settings": dict(content["settings"]), "machine": machine, **keys}
