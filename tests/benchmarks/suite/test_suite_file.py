"""Suites of one's own: what a file may hold, the lines of its errors, and a run from end to end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.report.tables import report
from device_placement.benchmarks.runner import (
    BenchmarkConfig,
    all_tasks,
    chosen_budgets,
    chosen_problems,
)
from device_placement.benchmarks.suite.folder import begin_session, read_folders
from device_placement.benchmarks.suite.results import ROWS, append_rows, read_rows
from device_placement.benchmarks.suite.suite_file import line_of, read_suite
from device_placement.benchmarks.suite.suites import Problem
from device_placement.benchmarks.suite.task import run_task
from device_placement.envs import DevicePlacementError

OTHERS = Path(__file__).parents[2] / "models_of_others"
TEXT = f"""\
# two models of others
summary = "detectors and classifiers"
budget = 8

[problems."detector on a laptop"]
model = "{(OTHERS / "detector_nms.onnx").as_posix()}"
hardware = "laptop"
devices = ["CPU", "GPU"]
schedule = "concurrent"
max_groups = 6

[problems.classifier]
model = "{(OTHERS / "onnx_qdq.onnx").as_posix()}"
"""


def written(folder: Path, text: str = TEXT, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_becomes_a_suite(tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path))
    assert (suite.summary, suite.budget) == ("detectors and classifiers", 8)
    assert list(suite.problems) == ["detector on a laptop", "classifier"]
    detector = suite.problems["detector on a laptop"]
    assert (detector.devices, detector.max_groups) == ("CPU,GPU", 6)
    assert suite.problems["classifier"] == Problem((OTHERS / "onnx_qdq.onnx").as_posix())


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.onnx").touch()
    monkeypatch.chdir(tmp_path)
    text = '[problems.one]\nmodel = "a.onnx+diamond"\n'
    problem = read_suite(written(Path("mine"), text)).problems["one"]
    assert problem.model == str(Path("mine/a.onnx")) + "+diamond"


A = '[problems.a]\nmodel = "diamond"\n'
WRONG = {
    'budget = 0\n' + A: (1, "budget; give a whole number above 0"),
    '\n\nbudgett = 3\n' + A: (3, "Did you mean 'budget'?"),
    "budget = 3\n": (1, "There are no problems"),
    'budget = 3\n[problems.a]\nhardware = "laptop"': (2, "has no model"),
    '[problems.a]\nmodel = "diamon"': (2, "Did you mean 'diamond'?"),
    '[problems.a]\nmodel = "no.onnx"': (2, "path of a file, relative to this one"),
    A + '# a laptop\nhardwear = "laptop"': (4, "Did you mean 'hardware'?"),
    A + 'hardware = "lap"': (3, "Did you mean 'laptop'?"),
    A + 'max_groups = "six"': (3, "max_groups is 'six'; it must be int"),
    A + 'max_groups = 0': (3, "Got max_groups = 0; give 1 or more"),
    A + 'devices = [\n "CPU",\n "TPU",\n]': (3, "device of the hardware"),
    A + 'evaluator = "clock"': (3, "Unknown evaluator 'clock'"),
    A + 'evaluator = "openvino"\nhardware = "laptop"': (
        4,
        "it is for 'simulator' only",
    ),
    A + '[problems.b]\nmodel = "diamond"\nconstraints = "triangle"': (
        5,
        "without 'acyclic'",
    ),
    '[problems.a]\nmodel = "generated:x"': (2, "a whole number from 0"),
    '[problems.a]\nmodel = """\ndiamond"""\nschedule = "fast"': (4, "Unknown schedule 'fast'"),
    'problems.a = {model = "diamond", input_shapes = "x"}': (1, "Can't read the input shape"),
    "problems = 3": (1, "There are no problems"),
    '[problems]\na = "diamond"': (2, "give a table"),
    A + 'inputs = "x.npz"': (3, "There is no file"),
}  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_errors_name_the_line(text: str, tmp_path: Path) -> None:
    line, reason = WRONG[text]
    path = written(tmp_path, text)
    with pytest.raises(DevicePlacementError, match=re.escape(reason)) as caught:
        read_suite(path)
    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert "\n" not in str(caught.value)


def test_what_is_not_toml_is_an_error_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(DevicePlacementError, match=r"Can't read .*line 2"):
        read_suite(written(tmp_path, "budget = 3\nproblems ="))
    with pytest.raises(DevicePlacementError, match="must differ from the bundled suites"):
        read_suite(written(tmp_path, TEXT, "hard.toml"))


def test_lines_of_entries_in_any_notation() -> None:
    text = 'a.b = 1\n\n# c\n[c."d e"]\nf = [\n  1,\n]\n[c.g]\n'
    places = (("a", "b"), ("c", "d e"), ("c", "d e", "f"), ("c", "g"), ("c", "g", "missing"))
    assert [line_of(text, place) for place in places] == [1, 4, 5, 8, 8]


def test_two_models_of_others_run_replay_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `benchmark` does it, but in this process, which is quick."""
    out = tmp_path / "runs"
    out.mkdir()
    config = BenchmarkConfig(
        suite=written(tmp_path), placers="random,greedy", seeds=1, out=str(out)
    )
    problems = chosen_problems(config)
    begin_session(out, config, problems, budgets=chosen_budgets(config))
    append_rows(str(out / ROWS), [run_task(task) for task in all_tasks(config, problems, out)])
    rows = read_rows(str(out / ROWS))
    assert {row.suite for row in rows} == {"mine"}
    assert [row.failure for row in rows] == [""] * 4
    assert {row.budget for row in rows} == {8}
    assert main(["replay", str(out)]) == 0
    assert "4 of 4 rows reproduce" in capsys.readouterr().out
    text = report(read_folders([str(out)], replayed=True))
    assert "### mine" in text
    assert "| gap in % | classifier † | detector on a laptop † |" in text
    (out / ROWS).write_text((out / ROWS).read_text().replace(",8,0,", ",7,0,"))
    assert main(["replay", str(out)]) == 1
    assert "its budget is 7, that of its call 8" in capsys.readouterr().err
