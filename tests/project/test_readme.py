"""What the README tells people to run does run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from device_placement.benchmarks.report.scores import Scores
from device_placement.benchmarks.report.tables import compact_table, with_table
from device_placement.benchmarks.suite.folder import read_folders

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
RUNNABLE = [block for block in BLOCKS if "my_model" not in block]


@pytest.mark.parametrize("block", RUNNABLE, ids=range(len(RUNNABLE)))
def test_python_in_the_readme_runs(block: str, tmp_path: Path) -> None:
    exec(compile(block, str(README), "exec"), {})


def test_names_in_the_readme_are_there() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(RUNNABLE) == 5
    for path in re.findall(r"\]\(([^):#]+)\)", text):
        assert (README.parent / path).exists(), path


def test_the_table_in_the_readme_is_that_of_the_results() -> None:
    """Else: device-placement scores benchmarks/results/paper_hard --readme README.md."""
    text = README.read_text(encoding="utf-8")
    scores = Scores(read_folders([str(RESULTS / "paper_hard")], replayed=True))
    assert with_table(text, compact_table(scores, ["paper", "hard"])) == text
