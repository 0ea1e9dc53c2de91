"""Command line, options, timing and tables that the study scripts share."""

from __future__ import annotations

import contextlib
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, NoReturn, ParamSpec, TypeVar

import numpy as np

from device_placement.agents.cli import exit_status, our_warnings
from device_placement.agents.options import POSITIONAL, OptionGroups, parse
from device_placement.agents.placers.baselines import random_assignment
from device_placement.benchmarks.suite.results import write_lines
from device_placement.envs.arrays import Int64
from device_placement.envs.devices import make_core
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.evaluation import Evaluation, Evaluator, single_assignments
from device_placement.envs.factory import make_evaluator
from device_placement.envs.graph.coarsening import CoarseGraph
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.machine import describe_machine
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.models.loading import parse_input_shapes
from device_placement.envs.models.normalisation import input_name
from device_placement.envs.rendering.text import align

TWO_PRECISIONS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"

C = TypeVar("C")
T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class ModelsConfig:
    """Options of a study of several models."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("models",)}

    models: tuple[str, ...] = ("resnet50", "inception_v3", "bert_base")
    """Bundled models (resnet50, inception_v3, bert_base, two_towers, diamond) or paths of model
    files."""


@dataclass(frozen=True)
class OneModelConfig:
    """Options of a study of random placements of one model."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("model",)}

    model: str = "resnet50"
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side."""
    devices: str = "auto"
    """Devices, comma-separated, as for the commands."""
    seed: int = 0
    """Seed of all random choices."""


def run(
    main: Callable[[C], int],
    config: type[C],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> NoReturn:
    """Run a study: parse its options, print machine and options, call it, and exit.

    Args:
        main: takes the options, prints the results, and returns the exit status.
        config: dataclass of the options.
        description: shown by ``--help``.
        arguments: what to parse; the command line by default.

    Raises:
        SystemExit: always, with the status that `exit_status` returns.
    """
    name, program = _name_and_program(main)
    words = sys.argv[1:] if arguments is None else arguments

    def study() -> int:
        options = parse(config, words, program, (description or "").replace("::\n", ":\n"))
        print(", ".join(f"{key} {value}" for key, value in describe_machine().items()))
        print(f"{options}\n", flush=True)
        with our_warnings():
            return main(options)

    sys.exit(exit_status(name, study))


def _name_and_program(main: Callable[..., int]) -> tuple[str, str]:
    """Return the name of a study and how to call it: ``python -m MODULE`` or ``python FILE``."""
    spec = sys.modules[main.__module__].__spec__  # has the name of a module that is __main__
    if spec is None:
        return Path(sys.argv[0]).stem, f"python {sys.argv[0]}"
    return spec.name.rpartition(".")[2], f"python -m {spec.name}"


def timed(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """Call a function; return its result and the seconds that it took."""
    start = time.perf_counter()
    result = function(*args, **kwargs)
    return result, time.perf_counter() - start


def random_placements(coarse: CoarseGraph, number: int, seed: int) -> list[list[int]]:
    """Draw placements, each group's device evenly among those that support it.

    Returns:
        (number, num_groups) device numbers.
    """
    generator = np.random.default_rng(seed)
    return [random_assignment(coarse, generator) for _ in range(number)]


@contextlib.contextmanager
def random_steps(
    model: str, devices: str, steps: int, seed: int, measuring: MeasureConfig | None = None
) -> Iterator[tuple[DevicePlacementEnv, list[Int64]]]:
    """Open an environment at the start of an episode, with a random action for each step.

    Nothing is stored, and the steps do not end the episode.

    Yields:
        The environment, which is closed at the end, and the actions.
    """
    env = DevicePlacementEnv(model, devices, horizon=steps + 1, measuring=measuring, store=None)
    with contextlib.closing(env):
        env.reset(seed=seed)
        yield env, [np.array(one) for one in random_placements(env.coarse, steps, seed)]


@contextlib.contextmanager
def measuring_each(
    config: OneModelConfig, ways: Mapping[str, MeasureConfig]
) -> Iterator[dict[str, OpenVINOEvaluator]]:
    """Open evaluators that measure the same placements in different ways.

    Nothing is stored. Workers run, and references are fixed.

    Args:
        config: model and devices.
        ways: how to measure, by name.

    Yields:
        The evaluators by name, which are closed at the end.
    """
    with contextlib.ExitStack() as stack:
        evaluators = {}
        for name, way in ways.items():
            evaluator = make_evaluator(config.model, config.devices, measuring=way, store=None)
            evaluators[name] = stack.enter_context(contextlib.closing(evaluator))
            evaluate_singles(evaluator)
        yield evaluators


def shapes_of(model: str, input_shapes: str) -> dict[str, list[int]] | None:
    """Return those of the given shapes that belong to inputs of a model, if any were given.

    Args:
        model: name of a bundled model, which has static shapes, or path of a file.
        input_shapes: as the commands take them, for several models.
    """
    shapes = parse_input_shapes(input_shapes)
    if shapes is None or not Path(model).exists():
        return None
    inputs = make_core(["CPU"]).read_model(model).inputs
    names = {name for port in inputs for name in (*port.get_names(), input_name(port))}
    return {name: shape for name, shape in shapes.items() if name in names}


def evaluate_singles(evaluator: Evaluator) -> list[Evaluation]:
    """Evaluate each single in turn, and return the evaluations."""
    return [evaluator.evaluate(one) for one in single_assignments(evaluator).values()]


def progress(*words: object) -> None:
    """Print a line about a study's progress to standard error, apart from its results."""
    print(*words, file=sys.stderr, flush=True)


def print_table(rows: Sequence[Sequence[str]], right: Sequence[int]) -> None:
    """Print rows below one another, the headings first; columns in `right` are right-aligned."""
    print("\n".join(align(rows, right)), flush=True)


class LiveTable:
    """Table that is printed line by line, each as soon as it is known.

    Args:
        columns: heading, colon, and the format specification of the cells, which begins with
            alignment and width.

    >>> table = LiveTable("model:<9", "ms:>6.2f")
    model        ms
    >>> table.add("diamond", 1.5)
    diamond    1.50
    """

    def __init__(self, *columns: str) -> None:
        headings, _, self._specs = zip(*(one.rpartition(":") for one in columns), strict=True)
        widths = [re.findall(r"^[<>]\d+", spec)[0] for spec in self._specs]
        self._print(format(name, width) for name, width in zip(headings, widths, strict=True))

    def add(self, *cells: Any) -> None:
        """Print a line, one cell per column."""
        self._print(format(cell, spec) for cell, spec in zip(cells, self._specs, strict=True))

    def _print(self, cells: Iterator[str]) -> None:
        print("".join(cells).rstrip(), flush=True)


def judge(reached: bool, target: str) -> str:
    """Return in words whether a figure reaches its target."""
    return f"{'reaches' if reached else 'MISSES'} {target}"


def write_records(path: str, kind: type[Any], records: Sequence[Any]) -> None:
    """Write dataclass instances as the lines of a CSV file, below the names of their fields."""
    write_lines(path, [field.name for field in fields(kind)], map(astuple, records))
