"""The README and the pages of the docs: their code runs, their links, tables and outputs hold."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from broken_models import whole_onnx
from device_placement.agents.cli import COMMANDS, main
from device_placement.benchmarks.report.scores import Scores
from device_placement.benchmarks.report.tables import compact_table, with_table
from device_placement.benchmarks.suite.folder import read_folders
from device_placement.envs import (
    Placement,
    coarsen,
    load_model,
    make_core,
    parse_devices,
    read_graph,
)
from problems import TWO_CPUS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
MAX_WORDS = 1000

PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (README, ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md")))
    if "generated" not in path.parts
}
ENVIRONMENT_PAGES = runpy.run_path(str(DOCS / "extensions" / "environment_pages.py"))["pages"]()
TEXTS = PAGES | {f"environments/{name}": text for name, text in ENVIRONMENT_PAGES.items()}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


RUNNABLE = {
    f"{page}-{number}": block
    for page, text in TEXTS.items()
    for number, block in enumerate(blocks(text, "python"))
    if "my_model" not in block
}


def cells(text: str, mark: str) -> dict[tuple[str, str], str]:
    """The table between two marks: (row, column) -> cell."""
    found = re.search(f"<!-- {mark} -->\n(.*?)<!-- /{mark} -->", text, flags=re.DOTALL)
    assert found
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found[1].splitlines()]
    return {
        (row[0], head): cell
        for row in rows[2:]
        for head, cell in zip(rows[0][1:], row[1:], strict=True)
    }


@pytest.mark.parametrize("name", RUNNABLE)
def test_python_on_the_pages_runs(name: str) -> None:
    exec(compile(RUNNABLE[name], name, "exec"), {})


def test_the_start_page_places_saves_and_pre_processes_your_own_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its code about your own model, in a folder that has the files which it names."""
    monkeypatch.chdir(tmp_path)
    Path("my_model.onnx").write_bytes(whole_onnx().SerializeToString())
    model, devices = load_model("my_model.onnx"), parse_devices(TWO_CPUS)
    coarse = coarsen(read_graph(model, devices), "none")
    assignment = [group % 2 for group in range(coarse.num_groups)]
    Path("runs/mine").mkdir(parents=True)
    placement = Placement.from_groups(coarse, devices, assignment)
    placement.save("runs/mine/best_placement.json")
    found = [one for one in blocks(PAGES["docs/start.md"], "python") if "my_model.onnx" in one]
    codes = [one for one in found if "compile_model" in one]
    assert len(codes) == 3
    core, counts = make_core(devices), set()
    for code in codes:
        names: dict[str, Any] = {}
        exec(compile(code, "docs/start.md", "exec"), names)
        again = core.compile_model(names["model"], placement.hetero_name)
        for compiled in (names["compiled"], again):
            counts.add(int(compiled.get_property("HETERO_NUMBER_OF_SUBMODELS")))
    assert counts == {5}


def test_every_page_with_code_is_found() -> None:
    pages = [name.rpartition("-")[0] for name in RUNNABLE]
    assert pages.count("README.md") == 1
    assert pages.count("docs/start.md") == 2
    assert pages.count("docs/agents.md") == 5
    assert {"docs/placers.md", "docs/measuring.md", "docs/benchmark.md"} <= set(pages)
    assert len(ENVIRONMENT_PAGES) == 6
    assert set(pages) > {f"environments/{name}" for name in ENVIRONMENT_PAGES}


def test_the_readme_shows_what_its_code_prints() -> None:
    (code,) = blocks(README.read_text(encoding="utf-8"), "python")
    shown = code.rstrip("\n").rpartition("\n# ")[2] + "\n"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(README), "exec"), {})
    number = r"\d+\.\d+"
    assert re.sub(number, "N", printed.getvalue()) == re.sub(number, "N", shown)
    values = [float(one) for one in re.findall(number, printed.getvalue())]
    assert values == pytest.approx([float(one) for one in re.findall(number, shown)], rel=0.02)


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= MAX_WORDS


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    folder = (ROOT / page).parent
    links = re.findall(r"\]\(([^):#]+)(?:#[\w-]+)?\)", PAGES[page])
    for path in [*links, *re.findall(r'src="([^":]+)"', PAGES[page])]:
        written = DOCS / "environments" / "page.md.in" if "generated/" in path else folder / path
        assert written.exists(), f"{page} links to {path}"


def test_commands_and_options_on_the_pages_exist(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        line
        for text in TEXTS.values()
        for block in blocks(text, "console")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ device-placement ")
    ]
    used: dict[str, set[str]] = {}
    for line in lines:
        used.setdefault(line.split()[2], set()).update(re.findall(r" (--[a-z-]+)", line))
    assert used.keys() <= COMMANDS.keys()
    assert len(used) > 5
    for name, options in used.items():
        with contextlib.suppress(SystemExit):
            main([name, "--help"])
        shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert options <= shown, name


def test_the_table_of_results_is_that_of_the_rows() -> None:
    """Else: device-placement scores benchmarks/results/paper_hard --readme docs/results.md."""
    text = PAGES["docs/results.md"]
    scores = Scores(read_folders([str(RESULTS / "paper_hard")], replayed=True))
    assert with_table(text, compact_table(scores, ["paper", "hard"])) == text


def test_the_small_table_in_the_readme_is_a_part_of_that_one() -> None:
    few = cells(README.read_text(encoding="utf-8"), "few scores")
    assert few.items() <= cells(PAGES["docs/results.md"], "scores").items()
    assert len(few) >= 20
