"""Searches whose measuring processes are lost: what they end with, and what is tried again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device_placement.agents.cli import main
from device_placement.agents.runs import recording
from device_placement.agents.runs.recording import LOSSES, RecordingEvaluator
from device_placement.envs.measuring import isolation
from device_placement.envs.measuring.compare import compare, placed
from problems import TWO_CPUS
from processes import isolated, mixed
from runs import lines

GONE = (sys.executable, "-c", "raise SystemExit('out of files')")  # in place of each worker


def words(out: Path, *more: str) -> list[str]:
    options = ["--max-samples", "4", "--confirmations", "0", "--rounds", "0", "--store", "none"]
    return ["search", "diamond", "--devices", TWO_CPUS, *options, "--out", str(out), *more]


def test_a_search_in_which_all_is_lost_ends_and_is_made_whole_when_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "run", isolation.COMMAND
    monkeypatch.setattr(isolation, "COMMAND", GONE)
    assert main(words(out, "--placer", "random", "--budget", "8")) == 2
    errors = capsys.readouterr().err
    assert "Nothing can be measured any more: the last 5 placements were lost" in errors
    assert "out of files" in errors
    assert len(lines(out)) == LOSSES
    assert all(line["evaluation"]["transient"] for line in lines(out))
    monkeypatch.setattr(isolation, "COMMAND", command)
    assert main(["search", "--resume", "--out", str(out)]) == 0
    assert "8 placements evaluated" in capsys.readouterr().out
    again = lines(out)[LOSSES:]
    assert len(again) == 8
    assert not any(line["evaluation"]["error"] for line in again)


def test_a_search_with_nothing_valid_does_not_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(isolation, "COMMAND", GONE)
    assert main(words(tmp_path / "run", "--placer", "random", "--budget", "3")) == 2
    assert "None of the 3 placements is valid" in capsys.readouterr().err


def test_placements_that_are_to_blame_themselves_do_not_end_a_search(
    tmp_path: Path, faulty: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "LOSSES", 2)
    faulty("abort", "compile", "every:1")  # all but the reference
    assert main(words(tmp_path / "run", "--placer", "random", "--budget", "4")) == 0
    found = [line["evaluation"]["transient"] for line in lines(tmp_path / "run")]
    assert found == [False, True, True, True]


def test_one_lost_process_does_not_spoil_the_final_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluator, command = isolated(), isolation.COMMAND
    entries = [placed(evaluator, str(number), mixed(evaluator, number)) for number in (1, 2)]

    def started_at_the_second_attempt(command_: object) -> isolation.Worker:
        monkeypatch.setattr(isolation, "Worker", worker)
        return worker(GONE)

    worker = isolation.Worker
    monkeypatch.setattr(isolation, "Worker", started_at_the_second_attempt)
    found = compare(evaluator, entries, rounds=2)
    assert command == isolation.COMMAND
    assert all(one.valid for one in found.values())
    evaluator.close()


def test_a_reference_that_was_lost_is_tried_again_for_the_next_placement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluator, command = isolated(), isolation.COMMAND
    monkeypatch.setattr(isolation, "COMMAND", GONE)
    lost = evaluator.evaluate(mixed(evaluator, 1))
    assert lost.transient
    assert "No device runs all of" in lost.error
    assert not evaluator.can_measure()
    monkeypatch.setattr(isolation, "COMMAND", command)
    assert evaluator.can_measure()
    assert evaluator.evaluate(mixed(evaluator, 2)).valid
    assert evaluator.evaluate(mixed(evaluator, 1)).transient  # not tried again in this run
    recorder = RecordingEvaluator(evaluator, 3)
    assert all(one.valid for one in recorder.evaluate_singles())
    evaluator.close()
