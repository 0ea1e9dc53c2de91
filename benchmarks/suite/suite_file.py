"""Suites of one's own: read a TOML file of problems, check it, and name the line of an error."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from device_placement.benchmarks.suite.random_graphs import PREFIX
from device_placement.benchmarks.suite.suites import MEASURED, SIMULATED, SUITES, Problem, Suite
from device_placement.envs.constraints import parse_constraints
from device_placement.envs.devices import parse_devices
from device_placement.envs.errors import DevicePlacementError, choose, unknown
from device_placement.envs.models import zoo
from device_placement.envs.models.loading import model_parts, parse_input_shapes
from device_placement.envs.models.side_by_side import JOINT
from device_placement.envs.problems.seeds import is_generated, parse_seed
from device_placement.envs.simulation.hardware import HARDWARE
from device_placement.envs.simulation.schedule import SCHEDULES
from device_placement.envs.untrusted import MIB, check_types, read_bytes, reading

ENDING = ".toml"
MAX_FILE = MIB // 4  # bytes
BUDGET = 60  # of a suite that gives none
TOP = ("summary", "budget", "problems")
KEYS = tuple(field.name for field in fields(Problem))
SIMULATOR_ONLY = ("hardware", "schedule", "chips", "room", "constraints")
CLOCK_ONLY = ("reference", "share", "inputs")
Place = tuple[str, ...]  # keys from the top of the file


class WrongEntryError(DevicePlacementError):
    """An entry that can't be used, and its keys."""

    def __init__(self, place: Place, reason: object) -> None:
        super().__init__(str(reason))
        self.place = place


def is_suite_file(name: str) -> bool:
    """Return whether a suite is given as a file."""
    return name.endswith(ENDING)


def suite_name(word: str) -> str:
    """Return the name of a suite, which for a file is that of the file.

    >>> suite_name("mine/detectors.toml"), suite_name("hard")
    ('detectors', 'hard')
    """
    return Path(word).stem if is_suite_file(word) else word


def read_suite(path: str) -> Suite:
    """Read a suite from a TOML file; paths in it are relative to its folder.

    Raises:
        DevicePlacementError: when it can't be used; with the line.
    """
    name = suite_name(path)
    if name in SUITES or not re.fullmatch(r"[\w.-]+", name):
        raise DevicePlacementError(
            f"Got the suite file {path!r}; its name must differ from the bundled suites "
            f"({', '.join(SUITES)}) and have letters, digits, '_', '-' and '.' only. Rename it."
        )
    with reading(path, "a suite", "give a TOML file as in docs/benchmark.md."):
        text = read_bytes(path, MAX_FILE).decode("utf-8")
        content = _parsed(text)
    try:
        return _suite(content, name, Path(path).parent)
    except WrongEntryError as error:
        raise DevicePlacementError(
            f"{path}, line {line_of(text, error.place)}: {error} Correct the file."
        ) from error


def _parsed(text: str) -> dict[str, Any]:
    """Parse TOML; an error names the line also where it is the last one."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        last = f"at line {len(text.splitlines())}, the last"
        raise ValueError(str(error).replace("at end of document", last)) from error


def line_of(text: str, place: Place) -> int:
    r"""Return the number of the line on which an entry of a valid TOML text begins.

    Where the entry is missing, the line of the table that should hold it is returned.

    >>> line_of('budget = 9\n[problems.a]\nmodel = "b"', ("problems", "a", "model"))
    3
    """
    lines = text.splitlines()
    begins = 0  # of the statement that is being read
    for end in range(1, len(lines) + 1):
        try:
            content = tomllib.loads("\n".join(lines[:end]))
        except tomllib.TOMLDecodeError:  # within a text or a list of several lines
            continue
        if _has(content, place):
            plain = [line.strip() for line in lines[begins:end]]
            blank = next((i for i, line in enumerate(plain) if line and line[0] != "#"), 0)
            return begins + blank + 1
        begins = end
    return line_of(text, place[:-1]) if place else 1


def _has(content: Any, place: Place) -> bool:
    for key in place:
        if not isinstance(content, dict) or key not in content:
            return False
        content = content[key]
    return True


def _suite(content: Mapping[str, Any], name: str, folder: Path) -> Suite:
    for key in content:
        if key not in TOP:
            raise WrongEntryError((key,), unknown("key", key, TOP))
    summary, budget = content.get("summary", name), content.get("budget", BUDGET)
    if not isinstance(summary, str) or not summary.isprintable():
        raise WrongEntryError(("summary",), f"Got {summary!r} as summary; give a line of text.")
    if type(budget) is not int or budget < 1:
        raise WrongEntryError(
            ("budget",), f"Got {budget!r} as budget; give a whole number above 0."
        )
    problems = content.get("problems")
    if not isinstance(problems, dict) or not problems:
        raise WrongEntryError(
            ("problems",),
            "There are no problems; give each a table, as in [problems.NAME], with a model.",
        )
    made = {label: _problem(label, entry, folder) for label, entry in problems.items()}
    return Suite(summary, made, budget)


def _problem(label: str, entry: Any, folder: Path) -> Problem:
    place = ("problems", label)
    if not label.strip() or not label.isprintable():
        raise WrongEntryError(
            place, f"Got {label!r} as the name of a problem; give a line of text."
        )
    if not isinstance(entry, dict):
        raise WrongEntryError(place, f"Got {entry!r} as the problem {label!r}; give a table.")
    if "model" not in entry:
        raise WrongEntryError(place, f"The problem {label!r} has no model; add model = ...")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in KEYS:
            raise WrongEntryError((*place, key), unknown("key of a problem", key, KEYS))
        is_list = isinstance(value, list) and all(isinstance(one, str) for one in value)
        values[key] = ",".join(value) if is_list else value
        try:
            check_types("key", {key: values[key]}, Problem)
        except TypeError as error:
            text = str(error)
            raise WrongEntryError((*place, key), f"{text[:1].upper()}{text[1:]}.") from error
    for key in ("model", "inputs"):
        if values.get(key):
            values[key] = _resolved(values[key], folder)
    problem = Problem(**values)
    for key, check in CHECKS.items():
        try:
            check(problem)
        except DevicePlacementError as error:
            raise WrongEntryError((*place, key), error) from error
    apart = SIMULATOR_ONLY if problem.evaluator == MEASURED else CLOCK_ONLY
    for key in apart:
        if key in values:
            other = SIMULATED if problem.evaluator == MEASURED else MEASURED
            raise WrongEntryError(
                (*place, key),
                f"Got {key} with evaluator = {problem.evaluator!r}; it is for {other!r} only.",
            )
    return problem


def _resolved(source: str, folder: Path) -> str:
    """Return a source with the files in it relative to where the command runs."""
    parts = [source] if (folder / source).exists() else source.split(JOINT)
    found = (str(folder / one) if (folder / one).is_file() else one for one in parts)
    return JOINT.join(found)


def _check_model(problem: Problem) -> None:
    if is_generated(problem.model):
        parse_seed(problem.model)
        return
    if problem.model.startswith(PREFIX):
        return
    for part in model_parts(problem.model):
        if part not in zoo.ZOO and not os.path.isfile(part):
            raise DevicePlacementError(
                f"{unknown('model', part, zoo.ZOO)} Or give the path of a file, relative to this "
                "one."
            )


def _check_devices(problem: Problem) -> None:
    if problem.devices == "auto":
        return
    names = [device.name for device in parse_devices(problem.devices)]
    if problem.evaluator == SIMULATED and (problem.hardware or not _has_costs(problem.model)):
        machine = problem.hardware or "desktop"
        known = choose("hardware", machine, HARDWARE).devices
        for name in names:
            choose(f"device of the hardware {machine!r}", name, known)


def _has_costs(model: str) -> bool:
    """Return whether a model brings its own machine."""
    return is_generated(model) or Path(model).suffix in (".json", ".txt")


def _check_number(name: str, least: float) -> Callable[[Problem], None]:
    def check(problem: Problem) -> None:
        value = getattr(problem, name)
        if value is not None and not value >= least:
            raise DevicePlacementError(f"Got {name} = {value}; give {least} or more.")

    return check


def _check_inputs(problem: Problem) -> None:
    if problem.inputs and not os.path.isfile(problem.inputs):
        raise DevicePlacementError(f"There is no file {problem.inputs!r}; give an .npz file.")


def _choice(name: str, table: Mapping[str, Any] | Sequence[str]) -> Callable[[Problem], None]:
    def check(problem: Problem) -> None:
        if value := getattr(problem, name):
            choose(name, value, dict.fromkeys(table))

    return check


CHECKS: Mapping[str, Callable[[Problem], None]] = {
    "evaluator": _choice("evaluator", (SIMULATED, MEASURED)),
    "model": _check_model,
    "hardware": _choice("hardware", HARDWARE),
    "schedule": _choice("schedule", SCHEDULES),
    "devices": _check_devices,
    "constraints": lambda one: _ignore(parse_constraints(one.constraints)),
    "input_shapes": lambda one: _ignore(parse_input_shapes(one.input_shapes)),
    "inputs": _check_inputs,
    "max_groups": _check_number("max_groups", 1),
    "chips": _check_number("chips", 0),
    "room": _check_number("room", 1),
    "share": _check_number("share", 0),
}
"""Key -> check of its value; the first that fails is reported."""


def _ignore(_: object) -> None:
    """Do nothing: only that the value could be read counts."""
