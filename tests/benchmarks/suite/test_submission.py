"""Submissions to the leaderboard: which rules they break, and what the ranking shows."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.report import leaderboard as ranking
from device_placement.benchmarks.report.leaderboard import leaderboard
from device_placement.benchmarks.suite import submission
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.benchmarks.suite.submission import RANKED, broken_rules, wrong_runs
from tiny_benchmark import make_here

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
CODE = """\
def search(evaluator, budget, seed):
    for number in range(16):
        if evaluator.spent:
            return
        evaluator.evaluate([(number + seed) >> group & 1 for group in range(4)])
"""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A submission as its author sends it, to the suite ``tiny``."""
    from device_placement.benchmarks.suite.suites import SUITES
    from tiny_benchmark import TINY

    folder = tmp_path_factory.mktemp("submission")
    (folder / "mine.py").write_text(CODE)
    out = folder / "mine"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SUITES, "tiny", TINY)  # type: ignore[arg-type]
        patch.setattr("device_placement.benchmarks.suite.folder.git_revision", lambda: "")
        make_here(out, [str(folder / "mine.py") + ":search", "greedy"], seeds=5)
    shutil.copy(folder / "mine.py", out)
    return out


@pytest.fixture
def copy(sent: Path, tmp_path: Path, tiny_suite: None) -> Path:
    shutil.copytree(sent, tmp_path / "mine")
    return tmp_path / "mine"


def in_sessions(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "benchmark.json").read_text())
        for session in content["sessions"]:
            change(session)
        (folder / "benchmark.json").write_text(json.dumps(content))

    return edit


def in_rows(pattern: str, text: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        rows = (folder / "runs.csv").read_text()
        changed = re.sub(pattern, text, rows, flags=re.MULTILINE)
        assert changed != rows
        (folder / "runs.csv").write_text(changed)

    return edit


BROKEN = {
    "budget": (in_rows(",8,0,", ",9,0,"), "The budget of tiny is 8; there are runs with 9."),
    "seed": (in_rows(r"^tiny,diamond,.*search,3,.*\n", ""), "search lacks 1 run of tiny"),
    "version": (
        in_sessions(lambda one: one["machine"].update({"device-placement": "0.0.1"})),
        "Runs were made with device-placement 0.0.1",
    ),
    "code": (in_sessions(lambda one: one.update(revision="ab-dirty")), "ran changed code"),
    "problem": (
        in_sessions(lambda one: one["problems"][0][2].update(hardware="server")),
        "'diamond' differs from the problem of that name in tiny",
    ),
    "traces": (lambda folder: shutil.rmtree(folder / "traces"), "12 of 12 runs have no trace"),
    "file": (lambda folder: (folder / "mine.py").unlink(), "copy mine.py into it"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_rule_is_checked(name: str, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit, reason = BROKEN[name]
    edit(copy)
    assert any(reason in sentence for sentence in broken_rules(copy))
    assert main(["replay", str(copy), "--submission"]) == 1
    output = capsys.readouterr()
    assert reason in output.err
    assert "breaks" in output.out
    assert not (copy / "replay.csv").exists()


def test_a_submission_that_keeps_the_rules_is_replayed_again(
    copy: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (copy / "replay.csv").write_text("of its author\n")
    assert main(["replay", str(copy), "--submission"]) == 0
    printed = capsys.readouterr().out
    assert f"The submission in {copy} keeps the rules." in printed
    assert "12 of 12 rows reproduce" in printed
    monkeypatch.setattr(ranking, "RANKED", ("tiny",))
    text = leaderboard(copy.parent)
    assert re.search(r"\| \d \| `mine.py:search` \| \d\.\d+ .* \| 10 \| `mine` \|", text)
    in_rows(r"^tiny,diamond,.*search,3,.*\n", "")(copy)
    assert "mine.py:search" not in leaderboard(copy.parent)


def test_only_simulated_suites_are_ranked() -> None:
    assert {"paper", "hard", "mcm"} <= {*RANKED}
    assert not any(name.startswith("local") for name in RANKED)
    assert submission.WORKLOADS not in RANKED


def test_the_committed_results_keep_budget_seeds_and_problems() -> None:
    rows = read_folders([str(RESULTS / "paper_hard")], replayed=True)
    broken = [*wrong_runs([row for row in rows if row.suite in ("paper", "hard")])]
    assert broken == []
