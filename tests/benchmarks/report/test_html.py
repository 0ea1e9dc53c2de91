"""Figures and the HTML report, of a small benchmark that was run."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from pathlib import Path

import numpy as np
import pytest

from device_placement.agents.cli import main
from device_placement.benchmarks.report.figures import draw_curves, draw_profile, shown_placers
from device_placement.benchmarks.report.scores import Scores, interquartile_means
from device_placement.benchmarks.suite.results import read_rows
from device_placement.envs.rendering.timeline import draw_timeline
from device_placement.envs.simulation.timeline import Event

PLACERS = "random,genetic,cp_sat,contiguous,own_algorithms:broken"


@pytest.fixture(scope="module")
def finished(folder: Path) -> Path:
    out = str(folder / "quick")
    words = ["--suite", "quick", "--placers", PLACERS, "--seeds", "2", "--out", out]
    assert main(["benchmark", *words]) == 0
    return folder / "quick"


def scores_of(folder: Path) -> Scores:
    return Scores(read_rows(str(folder / "runs.csv")))


def test_the_report_is_one_file_that_needs_no_network(finished: Path) -> None:
    assert main(["report", str(finished)]) == 0
    text = (finished / "report.html").read_text()
    pictures = re.findall(r'src="([^"]+)"', text)
    assert len(pictures) == 1 + 3 * 3  # the profile; curves, graph and timeline of each problem
    for picture in pictures:
        content = base64.b64decode(picture.removeprefix("data:image/png;base64,"))
        assert content.startswith(b"\x89PNG")
    assert "http" not in re.sub(r'src="[^"]+"', "", text)
    assert "RuntimeError: a bug of mine" in text
    assert "<code>cp_sat</code> ‡" in text
    assert re.search(r"<pre>.+</pre>\n<p>Started \S+, revision .+; processor", text)


def test_the_curves_end_at_the_gaps_of_the_table(finished: Path) -> None:
    scores = scores_of(finished)
    problem = ("quick", "resnet50 in 12 groups, pipelined")
    (axes,) = draw_curves(scores, problem, ["random", "cp_sat"]).axes
    ends = {line.get_label(): line.get_ydata()[-1] for line in axes.lines if line.get_label()}
    median = 100 * np.quantile(scores.gaps(problem, "random"), 0.5, method="nearest")
    assert ends["random"] == pytest.approx(median)
    assert ends["cp_sat"] == 0.0
    assert "best single" in ends
    assert axes.get_xlabel() == "evaluations"
    assert axes.get_ylabel() == "gap to the optimum in %"


@pytest.mark.parametrize("name", ["b$x^2$.py:f", r"a$\frac{$.py:f", "_mine.py:f", "100%$", "<i>"])
def test_names_are_drawn_as_they_are(name: str, finished: Path, tmp_path: Path) -> None:
    rows = [
        dataclasses.replace(row, placer=name if row.placer == "random" else row.placer)
        for row in read_rows(str(finished / "runs.csv"))
    ]
    problem = (rows[0].suite, name)
    rows = [row for row in rows if row.problem == rows[0].problem]
    scores = Scores([dataclasses.replace(row, problem=name) for row in rows])
    for figure in (
        draw_curves(scores, problem, [name, "cp_sat"]),
        draw_profile(scores, [rows[0].suite], [name, "cp_sat"]),
        draw_timeline([Event(0, 0, 0.0, 1.0)], [name], name),
    ):
        figure.savefig(tmp_path / "figure.svg")
        drawn = re.findall("<!-- (.*?) -->", (tmp_path / "figure.svg").read_text())
        assert html.escape(name, quote=False) in [text.strip() for text in drawn]


def test_the_profile_is_a_share_that_only_grows(finished: Path) -> None:
    scores = scores_of(finished)
    means = interquartile_means(scores.efficiencies(["quick"]))
    placers = shown_placers(means)
    assert placers == ["cp_sat", "genetic", "random"]
    (axes,) = draw_profile(scores, ["quick"], placers).axes
    shares = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert (np.asarray(shares["cp_sat"]) == 1.0).all()
    for share in shares.values():
        assert (np.diff(share) >= 0).all()
        assert share[-1] == 1.0


def test_no_more_placers_are_shown_than_there_are_colours() -> None:
    mean = interquartile_means({"p": np.ones((1, 1))})["p"]
    means = {f"p{number}": mean for number in range(20)}
    means["random"] = means["p0"]
    shown = shown_placers(means)
    assert len(shown) == 7
    assert shown[-1] == "random"


def test_a_report_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "There are no runs" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
