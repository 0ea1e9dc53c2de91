"""What the study scripts share, and that they share it."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import math
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

from device_placement.benchmarks import study
from device_placement.benchmarks.study import LiveTable, OneModelConfig
from device_placement.envs import DevicePlacementError, make_evaluator
from device_placement.envs.measuring.config import MeasureConfig
from problems import QUICK, TWO_CPUS

FOLDER = Path(__file__).parents[2] / "benchmarks"
OTHERS = {"__init__", "config", "runner", "study"}
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in OTHERS)
PARTS_OF_SPEED = {"problem_speed", "simulator_speed", "training_speed"}
COMMANDS = [name for name in SCRIPTS if name not in PARTS_OF_SPEED]


@dataclass(frozen=True)
class Options:
    """Options of a study of nothing."""

    number: int = 1
    """A number."""


def status_of(main: Any, *arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        study.run(main, Options, "A study.", arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def source_lines(name: str) -> list[str]:
    """Lines of code and text, without imports and empty ones."""
    text = (FOLDER / f"{name}.py").read_text()
    imports = {
        number
        for node in ast.parse(text).body
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for number in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [line for number, line in lines if line and number not in imports]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_study_answers_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(f"device_placement.benchmarks.{name}")
    config = get_type_hints(module.main)["config"]
    with pytest.raises(SystemExit) as ended:
        study.run(module.main, config, module.__doc__, ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(config):
        assert f"--{field.name.replace('_', '-')}" in shown
    assert f"python -m device_placement.benchmarks.{name}" in " ".join(shown.split())
    assert "::" not in shown
    positional = {"model", "models"} & {field.name for field in dataclasses.fields(config)}
    for one in positional:
        word = one.upper().removesuffix("S")
        assert f"[{word}" in shown or f"] {word}" in shown  # with a default, or required


@pytest.mark.parametrize("name", COMMANDS)
def test_a_study_is_run_by_the_shared_runner(name: str) -> None:
    module = importlib.import_module(f"device_placement.benchmarks.{name}")
    config = get_type_hints(module.main)["config"].__name__
    assert source_lines(name)[-1] == f"run(main, {config}, __doc__)"


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_does_itself_what_the_runner_does(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    for word in ("tyro", "describe_machine", "sys.exit", "random_assignment"):
        assert word not in text


def test_no_two_scripts_have_four_lines_in_common() -> None:
    where = defaultdict(set)
    for name in [*SCRIPTS, "study"]:
        lines = source_lines(name)
        for block in zip(lines, lines[1:], lines[2:], lines[3:], strict=False):
            where[block].add(name)
    assert [(names, block) for block, names in where.items() if len(names) > 1] == []


def test_machine_and_options_come_before_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    def main(options: Options) -> int:
        print(f"result {options.number}")
        return 7

    assert status_of(main, "--number", "3") == 7
    machine, options, empty, result = capsys.readouterr().out.splitlines()
    assert machine.startswith("processor ")
    assert (options, empty, result) == ("Options(number=3)", "", "result 3")


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (DevicePlacementError("Got 3; give 2."), 2, "test_study: Got 3; give 2.\n"),
        (KeyboardInterrupt(), 130, "test_study: interrupted.\n"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(options: Options) -> int:
        raise error

    assert status_of(main) == status
    assert capsys.readouterr().err == message


def test_a_wrong_option_of_a_study_is_one_line() -> None:
    command = [sys.executable, "-m", "device_placement.benchmarks.memory"]
    done = subprocess.run([*command, "--modle", "x"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "memory: Unknown option --modle; did you mean --model? "
        "All options: python -m device_placement.benchmarks.memory --help\n"
    )


def test_errors_of_ours_keep_their_traceback() -> None:
    def main(options: Options) -> int:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        study.run(main, Options, None, [])


def test_a_live_table_has_its_numbers_below_the_headings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = LiveTable("model:<9", "error:>10.2e", "steps/s:>9,.0f", "  target:<1")
    table.add("diamond", 0.012, 12345.6, "  reaches 9")
    table.add("other", math.nan, 1, "")
    assert capsys.readouterr().out.splitlines() == [
        "model         error  steps/s  target",
        "diamond    1.20e-02   12,346  reaches 9",
        "other           nan        1",
    ]
    with pytest.raises(ValueError, match="zip"):
        table.add("diamond")


def test_random_placements_repeat_and_are_supported() -> None:
    coarse = make_evaluator("diamond", "CPU,GPU", evaluator="simulator").coarse
    drawn = study.random_placements(coarse, 20, seed=3)
    assert drawn == study.random_placements(coarse, 20, seed=3)
    assert drawn != study.random_placements(coarse, 20, seed=4)
    assert np.shape(drawn) == (20, coarse.num_groups)
    assert all(coarse.supported[range(coarse.num_groups), one].all() for one in drawn)


def test_measuring_each_evaluates_the_singles_and_closes(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"one": MeasureConfig(**QUICK), "other": MeasureConfig(**QUICK)}
    closed: list[str] = []
    with study.measuring_each(OneModelConfig("diamond", TWO_CPUS), ways) as evaluators:
        for name, evaluator in evaluators.items():
            assert evaluator.store_path == ""
            assert all(one.cached for one in study.evaluate_singles(evaluator))
            monkeypatch.setattr(evaluator, "close", lambda name=name: closed.append(name))
    assert sorted(closed) == sorted(ways)


def test_records_are_written_below_the_names_of_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "records.csv"
    study.write_records(str(path), Options, [Options(1), Options(2)])
    assert path.read_text() == "number\n1\n2\n"


def test_timed_returns_result_and_seconds() -> None:
    result, seconds = study.timed(divmod, 7, 2)
    assert result == (3, 1)
    assert seconds >= 0
