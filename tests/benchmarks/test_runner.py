"""The command `benchmark`, in processes as it is."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import own_algorithms
from device_placement.agents.cli import main
from device_placement.benchmarks.runner import all_tasks, benchmark, chosen_problems
from device_placement.benchmarks.suite.folder import read_sessions
from device_placement.benchmarks.suite.problems import open_problem, problems_of
from device_placement.benchmarks.suite.results import append_rows, latest, read_rows
from device_placement.benchmarks.suite.suites import SUITES, Problem, Suite
from device_placement.benchmarks.suite.task import packed_path, trace_path
from device_placement.envs import DevicePlacementError
from device_placement.envs.evaluation import single_assignments
from places import HELPERS
from platforms import needs_signals
from tiny_benchmark import OWN, TINY, config_of, lines_of, rows_of

pytestmark = pytest.mark.usefixtures("tiny_suite")
WORKLOADS = HELPERS / "workloads"


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """A benchmark that was made, for tests that look at it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[str, Suite], SUITES), "tiny", TINY)
        names = ["random", "heft", OWN + "guess", OWN + "broken"]
        assert benchmark(config_of(folder / "made", names, seeds=1)) == 0
    return folder / "made"


@pytest.fixture
def begun(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return Path(shutil.copytree(made, tmp_path / "begun"))


def test_own_algorithms_stand_beside_ours_and_failures_say_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reasons = {
        "broken": "RuntimeError: a bug of mine",
        "too_short": "the model has 4 groups",
        "greedy_for_more": "more than the budget of 8 placements",
        "gone": "its process ended with status 7",
        "nothing": "found no valid placement",
    }
    names = [*(OWN + name for name in ("guess", "step", *reasons)), "random", "ppo", "cp_sat"]
    assert benchmark(config_of(tmp_path, names, seeds=1, jobs=2)) == 0
    rows = rows_of(tmp_path)
    assert len(rows) == 2 * len(names)
    for (_, _, placer, _), row in rows.items():
        reason = reasons.get(placer.removeprefix(OWN), "")
        assert reason in row.failure
        assert bool(row.failure) == bool(reason)
        if not reason:
            assert row.time_s == min(time_s for _, time_s in row.improvements)
            assert row.evaluations <= row.budget == 8
            assert len(row.assignment) == row.groups == 4
    text = capsys.readouterr().out
    assert "| `own_algorithms:guess` |" in text
    assert f"- `{OWN}gone` (2 runs; diamond, pipelined): its process ended" in text
    (error,) = (tmp_path / "traces" / "tiny" / "diamond").glob("*broken-*-0.error.txt")
    assert "raise RuntimeError" in error.read_text()


@pytest.mark.parametrize("name", ["random", "heft", OWN + "guess"])
def test_a_trace_has_every_evaluation_in_order(name: str, made: Path) -> None:
    row = rows_of(made)["tiny", "diamond", name, 0]
    lines = lines_of(packed_path(trace_path(made, "tiny", "diamond", name, 0)))
    times = [line["evaluation"]["time_s"] for line in lines]
    assert len(times) == row.evaluations <= 8
    for number, time_s in row.improvements:
        assert times[number - 1] == pytest.approx(time_s)
    assert tuple(lines[row.improvements[-1][0] - 1]["assignment"]) == row.assignment
    assert len(list((made / "traces/tiny/diamond").glob("*.gz"))) == 3


def test_a_mended_algorithm_begins_anew(tmp_path: Path) -> None:
    mine, own = tmp_path / "mine.py", Path(own_algorithms.__file__).read_text(encoding="utf-8")
    mine.write_text(own.replace("while True:", "while True:  # for ever", 1))
    config = config_of(tmp_path / "out", [f"{mine}:greedy_for_more"], seeds=1)
    assert benchmark(config) == 0
    assert all(row.failure for row in read_rows(str(tmp_path / "out" / "runs.csv")))
    mine.write_text(own.replace("while True:", "while not evaluator.spent:", 1))
    assert benchmark(dataclasses.replace(config, retry_failed=True)) == 0
    for row in latest(read_rows(str(tmp_path / "out" / "runs.csv"))):
        assert not row.failure
        assert row.evaluations == 8
    assert not list((tmp_path / "out").rglob("*.error.txt"))


def test_killed_while_a_trace_is_packed(begun: Path) -> None:
    rows = {key: row for key, row in rows_of(begun).items() if row.placer == "random"}
    for packed in begun.rglob("random-0.jsonl.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.write_bytes(packed.read_bytes()[:40])
    (begun / "runs.csv").unlink()
    assert benchmark(config_of(begun, ["random"], seeds=1)) == 0
    assert rows_of(begun) == rows
    assert [len(lines_of(packed)) for packed in begun.rglob("random-0.jsonl.gz")] == [8, 8]
    assert not list(begun.rglob("random-0.jsonl"))


def test_all_leaves_out_what_does_not_apply(tmp_path: Path) -> None:
    config = config_of(tmp_path, ["random", "all", "random"], seeds=2)
    tasks = all_tasks(config, chosen_problems(config), tmp_path)
    assert len({task.key for task in tasks}) == len(tasks)
    assert {"cp_sat", "ppo", "random", "heft"} < {task.placer for task in tasks}
    assert not {"min_cut", "contiguous"} & {task.placer for task in tasks}


def test_only_the_problems_that_are_named_are_run(tmp_path: Path) -> None:
    for seeds in (1, 2):  # the second time it finishes what is there
        assert benchmark(config_of(tmp_path, ["random"], seeds=seeds, problems=("pipelined",))) == 0
        assert [problem for _, problem, _, _ in rows_of(tmp_path)] == ["pipelined"] * seeds
    file = tmp_path / "benchmark.json"
    saved = json.loads(file.read_text())
    saved["sessions"][0]["settings"]["problems"] = [7]
    file.write_text(json.dumps(saved))
    with pytest.raises(DevicePlacementError, match=r"problems is \[7\]; it must be a list of str"):
        read_sessions(tmp_path)


def test_what_is_there_is_not_made_again(begun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (begun / "runs.csv").read_text()
    assert benchmark(config_of(begun, ["random", OWN + "broken"], seeds=1)) == 0
    assert (begun / "runs.csv").read_text() == text
    assert "0 runs made" in capsys.readouterr().out
    more = config_of(begun, ["random", "genetic", OWN + "broken"], seeds=2)
    assert benchmark(more) == 0
    assert (begun / "runs.csv").read_text().startswith(text)
    assert len(rows_of(begun)) == 2 * (2 * 3 + 2)  # of heft and guess there is one seed
    again = dataclasses.replace(more, retry_failed=True)
    assert benchmark(again) == 0
    assert len(read_rows(str(begun / "runs.csv"))) == 2 * (2 * 3 + 2) + 4
    sessions = read_sessions(begun)
    assert [one["settings"]["seeds"] for one in sessions] == [1, 2, 2]
    assert {row.session for row in read_rows(str(begun / "runs.csv"))} == {0, 1, 2}
    assert sessions[0]["machine"]["python"]
    assert "command" in sessions[0]
    assert "revision" in sessions[0]


def test_other_settings_need_another_folder(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DevicePlacementError, match=r"budget of 8, others with 9.*another --out"):
        benchmark(config_of(begun, ["random"], budget=9))
    other = {"diamond": Problem("diamond", "server", "CPU,GPU.0")}
    changed = dataclasses.replace(TINY, problems=other)
    monkeypatch.setitem(cast(dict[str, Suite], SUITES), "tiny", changed)
    with pytest.raises(DevicePlacementError, match="are of another problem 'diamond'"):
        benchmark(config_of(begun, ["random"], seeds=2))


@needs_signals
def test_killed_twice_and_gone_on_with_it_has_the_same_rows(tmp_path: Path) -> None:
    words = ["--suite", "workloads", "--data", str(WORKLOADS), "--budget", "12", "--seeds", "1"]
    words += ["--placers", f"random,{OWN}killed_ppo,genetic"]
    command = [sys.executable, "-m", "device_placement.agents.cli", "benchmark", *words]
    killed, whole, kills = tmp_path / "killed", tmp_path / "whole", tmp_path / "kills"
    kills.mkdir()
    paths = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    for number in (1, 2):  # amid ppo on the first workload, then on the second
        done = subprocess.run(
            [*command, "--out", str(killed)],
            capture_output=True,
            check=False,
            env={**os.environ, own_algorithms.KILLS: str(kills), "PYTHONPATH": paths},
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len(list(kills.iterdir())) == number
        assert len(rows_of(killed)) == 1 + number
    assert main(["benchmark", *words, "--out", str(killed)]) == 0
    assert main(["benchmark", *words, "--out", str(whole)]) == 0
    assert str(rows_of(killed)) == str(rows_of(whole))
    assert len(rows_of(whole)) == 6
    assert not any(row.failure for row in rows_of(whole).values())
    assert read_sessions(killed)[0]["command"].startswith("device-placement benchmark --suite")
    traces = sorted(path.relative_to(whole) for path in whole.rglob("*.gz"))
    assert len(traces) == 6
    for trace in traces:
        one, other = (gzip.decompress((out / trace).read_bytes()) for out in (killed, whole))
        assert one == other


def test_wrong_names(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["benchmark", "--suite", "papers", "--out", str(tmp_path)]) == 2
    assert "Unknown suite 'papers'; allowed: paper, hard" in capsys.readouterr().err
    assert main(["benchmark", "--problems", "small GPV", "--out", str(tmp_path)]) == 2
    assert "Unknown problem 'small GPV'" in capsys.readouterr().err
    assert main(["benchmark", "--placers", "rendom", "--out", str(tmp_path)]) == 2
    assert "Did you mean 'random'" in capsys.readouterr().err
    assert main(["benchmark", "--jobs", "0", "--out", str(tmp_path)]) == 2
    assert "Got --jobs 0; give 1 or more" in capsys.readouterr().err
    assert main(["benchmark", "--suite", "workloads", "--out", str(tmp_path)]) == 2
    assert "needs --data with a folder of workloads" in capsys.readouterr().err
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("importlib.util.find_spec", lambda _: None)
        assert main(["benchmark", "--out", str(tmp_path)]) == 2
    assert "pip install 'device-placement[benchmark]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_every_problem_that_is_simulated_can_be_opened() -> None:
    small = [one for suite in ("paper", "hard", "quick") for one in problems_of(suite).values()]
    for problem in [*small, problems_of("scale")["100 ops in layers"]]:
        evaluator = open_problem(problem)
        assert open_problem(problem) is evaluator
        singles = single_assignments(evaluator).values()
        assert any(evaluator.evaluate(single).valid for single in singles)


def test_workloads_are_the_files_of_a_folder() -> None:
    found = problems_of("workloads", str(WORKLOADS))
    assert found
    assert all(Path(one.model).is_file() for one in found.values())


def test_scores_shows_the_tables_of_folders(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("random", "heft"):
        rows = [row for row in rows_of(made).values() if row.placer == name]
        (tmp_path / name).mkdir()
        append_rows(str(tmp_path / name / "runs.csv"), rows)
        shutil.copy(made / "benchmark.json", tmp_path / name)
    capsys.readouterr()
    assert main(["scores", str(tmp_path / "random"), str(tmp_path / "heft")]) == 0
    text = capsys.readouterr().out
    assert "| `random` |" in text
    assert "| `heft` ‡ |" in text
    assert main(["scores", str(tmp_path)]) == 2
    assert "give the --out of a benchmark" in capsys.readouterr().err


def test_licences_beside_workloads_are_left_alone(tmp_path: Path) -> None:
    shutil.copytree(WORKLOADS, tmp_path / "data")
    for name in ("LICENSE.txt", "Licence.txt", "README.txt", "NOTICE.json"):
        (tmp_path / "data" / name).write_text("Permission is hereby granted", encoding="utf-8")
    assert [*problems_of("workloads", str(tmp_path / "data"))] == [
        *problems_of("workloads", str(WORKLOADS))
    ]
