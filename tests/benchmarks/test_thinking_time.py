"""The study of thinking time: its table, and that its checksum tells searches apart."""

from __future__ import annotations

import dataclasses

import pytest

from device_placement.agents.placers import make_placer
from device_placement.benchmarks.thinking_time import ThinkingTimeConfig, checksum, main
from scripted import diamond_evaluator


def test_thinking_time_prints_a_line_a_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(ThinkingTimeConfig(("random",), "resnet50", budget=4, repeats=2)) == 0
    heading, small, large = capsys.readouterr().out.splitlines()
    assert heading.split()[:3] == ["placer", "groups", "evaluations"]
    assert small.split()[:3] == ["random", "12", "60"]
    assert large.split()[0] == "random"
    assert large.split()[2] == "4"
    assert small.split()[-1] != large.split()[-1]


def test_equal_searches_have_equal_checksums() -> None:
    one, same, other = (make_placer("random").place(diamond_evaluator(), 9, s) for s in (0, 0, 1))
    assert checksum(one) == checksum(same) != checksum(other)
    slower = dataclasses.replace(one, evaluations=tuple((k, 2 * t) for k, t in one.evaluations))
    assert checksum(slower) != checksum(one)
