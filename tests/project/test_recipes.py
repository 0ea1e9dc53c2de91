"""The recipes of the docs: short, on their page, and each runs for a few steps.

Those of libraries that are not installed are skipped; `make recipes` installs all.
"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "recipes"
MAX_LINES = 150
# Name -> what it needs, its options for a few steps, and what it then prints.
RUNS = {
    "ppo": ("torch", ["--steps", "1"], "placements, best speed-up over the first device"),
    "graph_network": ("torch_geometric", ["--episodes", "20"], "20 placements of two models"),
    "torchrl_ppo": ("torchrl", ["--frames", "1"], "update 0: mean speed-up"),
    "rllib_ppo": ("ray", ["--iterations", "1"], "iteration 0: geometric mean"),
    "optuna_search": ("optuna", ["--trials", "1", "--steps", "32"], "best of 1 trials"),
    "wandb_run": ("wandb", ["--steps", "32"], "best placement: "),
}
IN_OTHER_TESTS = {"cost_model"}  # with a dataset: tests/benchmarks/datasets


def test_every_recipe_is_short_and_on_a_page_and_run() -> None:
    names = {path.stem for path in RECIPES.glob("*.py")}
    assert names == {*RUNS} | IN_OTHER_TESTS
    pages = "".join((ROOT / "docs" / page).read_text() for page in ("recipes.md", "datasets.md"))
    for name in names:
        text = (RECIPES / f"{name}.py").read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_LINES, name
        assert f"```{{literalinclude}} recipes/{name}.py" in pages


@pytest.mark.filterwarnings("default")  # other libraries warn as they like
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", RUNS)
def test_a_recipe_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    library, options, printed = RUNS[name]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *options])
    runpy.run_path(str(RECIPES / f"{name}.py"), run_name="__main__")
    assert printed in capsys.readouterr().out
