"""The paper's tables beside ours, of rows written by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.report.paper_tables import ABLATION, COUNTERPARTS, SINGLES
from device_placement.benchmarks.suite.results import RunRow, append_rows
from device_placement.benchmarks.suite.suites import PAPER
from device_placement.envs.simulation.hardware import PAPER_SINGLES_S
from tiny_benchmark import write_replays


def rows() -> list[RunRow]:
    found = []
    for name, problem in PAPER.items():
        gpu_s = PAPER_SINGLES_S[problem.model]["GPU.1"]
        for placer in (*ABLATION, *COUNTERPARTS.values(), "cp_sat"):
            for seed, share in enumerate((1.0, 0.75, 0.5)):
                time_s = gpu_s * share
                known = {"time_s": time_s, "bound_s": gpu_s * 0.5, "wall_s": 10.0 * seed}
                bests = ((1, time_s),)
                found.append(
                    RunRow("paper", name, placer, seed, 9, 0, improvements=bests, **known)  # type: ignore[arg-type]
                )
    return list({row.key: row for row in found}.values())


def test_the_tables_are_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    append_rows(str(tmp_path / "runs.csv"), rows())
    assert main(["paper-tables", str(tmp_path)]) == 2
    assert f"do that first: device-placement replay {tmp_path}" in capsys.readouterr().err
    write_replays(tmp_path, rows())
    assert main(["paper-tables", str(tmp_path), "--out", str(tmp_path / "tables")]) == 0
    text = capsys.readouterr().out
    assert text.count("derived profile") == 3  # tables 2, 3 and 5
    tables = {}
    for name in ("table_1", "table_2", "table_3", "table_5"):
        assert (tmp_path / "tables" / f"{name}.md").read_text().strip() in text
        with (tmp_path / "tables" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
            tables[name] = {line[0]: line[1:] for line in csv.reader(file)}
    assert tables["table_1"]["ResNet-50"][::2] == ["396", "411"]
    assert all(
        int(number) > 100 for line in list(tables["table_1"].values())[1:] for number in line
    )
    for name in SINGLES:  # the profile is scaled to them
        paper, ours = tables["table_2"][name][::2], tables["table_2"][name][1::2]
        assert paper == ours
    assert tables["table_2"]["HSDAG"][2:4] == ["7.66 (52.1 %)", "5.86 (63.4 %)"]
    assert tables["table_2"]["RNN-based"][4] == "out of memory"
    assert tables["table_2"]["`cp_sat`"][:2] == ["-", "9.00 (29.7 %)"]
    assert tables["table_2"]["optimum, or its bound"][1] == "6.00 (53.1 %)"
    assert tables["table_3"]["`hsdag_without_position`"][:2] == ["8.59", "29.7 (6.2-53.1)"]
    assert tables["table_3"]["`hsdag`"][-1] == "-"
    assert tables["table_3"]["`hsdag_without_position`"][-1].startswith("0.500 (")
    assert tables["table_5"]["RNN-based"][-2:] == ["out of memory", "10"]


def test_without_runs_it_says_how_to_make_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["paper-tables", str(tmp_path)]) == 2
    assert "give the --out of a benchmark" in capsys.readouterr().err
    other = [RunRow("quick", "diamond", "random", 0, 9, 0, time_s=1.0)]
    append_rows(str(tmp_path / "runs.csv"), other)
    write_replays(tmp_path, other)
    assert main(["paper-tables", str(tmp_path)]) == 2
    assert "device-placement benchmark --suite paper" in capsys.readouterr().err
