"""Notebooks run from scratch, and are kept without what they print."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from device_placement.envs.files import replaced

ROOT = Path(__file__).parents[2]
EXECUTED = ROOT / "build" / "notebooks"  # the docs show their outputs
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_CELLS = 25

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def complaints(notebook: NotebookNode) -> list[NotebookNode]:
    """Errors, and what was written to stderr, as warnings are."""
    return [
        output
        for cell in code_cells(notebook)
        for output in cell.outputs
        if output.output_type == "error" or output.get("name") == "stderr"
    ]


def test_there_are_some() -> None:
    assert NOTEBOOKS


@each_notebook
def test_it_runs_without_a_warning(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))  # not the user's settings
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook
    work = tmp_path / "work"
    work.mkdir()
    notebook = read(path)
    resources = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert complaints(notebook) == []
    EXECUTED.mkdir(parents=True, exist_ok=True)
    with replaced(EXECUTED / path.name) as draft:
        nbformat.write(notebook, draft)


@each_notebook
def test_it_is_small_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert len(notebook.cells) <= MAX_CELLS
    assert set(notebook.metadata.language_info) == {"name"}  # versions and the like left out
    assert all(cell.metadata == {} for cell in notebook.cells)  # no times of execution
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None


@each_notebook
def test_it_imports_and_does_not_define(path: Path) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for cell in code_cells(read(path)):
        assert not any(isinstance(node, definitions) for node in ast.walk(ast.parse(cell.source)))
