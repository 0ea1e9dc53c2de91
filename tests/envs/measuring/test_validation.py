"""Placements that are measured and checked again, from the environment and the command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.cli import main
from device_placement.envs import (
    Claim,
    DevicePlacementEnv,
    DevicePlacementError,
    Evaluation,
    EvaluationStore,
    Placement,
    PlacementError,
    Validation,
    make_evaluator,
)
from device_placement.envs.evaluation import NAN
from device_placement.envs.measuring.validation import TIME_SLACK, claim_of, validate_placement
from problems import QUICK, TWO_CPUS, chain, measured

MIXED = [0, 1, 0, 0]
FOUND = Evaluation(1.0, (1.0,) * 6, (0.99, 1.01), output_error=0.1, output_cosine=0.99)


def validation(**changes: Any) -> Validation:
    literal = Validation(
        evaluation=FOUND,
        reference="CPU",
        reference_s=2.0,
        best_single="CPU",
        best_single_s=2.0,
        claimed_speedup=2.0,
        allowed_error=0.2,
    )
    return dataclasses.replace(literal, **changes)


def test_a_claim_is_held_against_what_is_measured() -> None:
    assert validation().holds
    slow = dataclasses.replace(FOUND, time_s=1.2, interval_s=(1.1, 1.3))
    assert not validation(evaluation=slow).time_holds
    assert validation(evaluation=slow).outputs_hold
    assert "DOES NOT HOLD" in validation(evaluation=slow).report()
    within = dataclasses.replace(FOUND, interval_s=(1 + TIME_SLACK, 1.3))
    assert validation(evaluation=within).time_holds
    assert validation(claimed_speedup=1.0).time_holds  # faster than claimed


def test_without_a_claim_the_best_single_is_the_measure() -> None:
    assert validation(claimed_speedup=NAN).time_holds
    assert "no speed-up was claimed" in validation(claimed_speedup=NAN).report()
    assert not validation(claimed_speedup=NAN, best_single_s=0.5).time_holds


def test_the_report_says_how_to_allow_as_much_as_the_claim() -> None:
    report = validation(claimed_error=1e300).report()
    assert "0.2 is allowed (the claim allows 1e+300; to do so: --max-output-error)" in report
    assert "the claim allows" not in validation(claimed_error=0.1).report()


def test_outputs_have_to_be_near_enough() -> None:
    assert not validation(allowed_error=0.05).outputs_hold
    assert not validation(allowed_error=0.05).holds
    broken = Evaluation.invalid("no such kernel")
    assert not validation(evaluation=broken).holds
    assert validation(evaluation=broken).report() == "does not run: no such kernel"


def quick_env(**options: Any) -> DevicePlacementEnv:
    return DevicePlacementEnv(
        "diamond", TWO_CPUS, store=None, isolation="none", max_samples=6, **options
    )


def test_an_environment_validates_its_best_and_any_other_placement(tmp_path: Path) -> None:
    env = quick_env()
    with pytest.raises(PlacementError, match="call reset"):
        env.validate()
    env.reset(seed=0)
    best = env.validate()
    assert not math.isnan(best.claimed_speedup)
    assert best.evaluation.valid
    assert best.outputs_hold
    other = env.validate(MIXED)
    assert math.isnan(other.claimed_speedup)
    assert other.evaluation.num_subgraphs > 1
    path = tmp_path / "placement.json"
    env.placement().save(path)
    assert env.validate(Placement.load(path)).claimed_speedup == best.claimed_speedup
    too_good = dataclasses.replace(env.placement(MIXED), claim=Claim("CPU", 1000.0))
    assert not env.validate(too_good).time_holds


def test_the_claims_reference_counts_and_its_limit_only_if_it_is_stricter() -> None:
    env = quick_env()
    env.reset(seed=0)
    placement = dataclasses.replace(env.placement(MIXED), claim=Claim("CPU_F32", 0.001, 0.5))
    found = env.validate(placement)
    assert found.reference.startswith("CPU_F32")
    assert found.claimed_speedup == 0.001
    assert found.allowed_error < 0.5
    assert "the claim allows 0.5" in found.report()
    modest = dataclasses.replace(placement, claim=Claim("CPU_F32", 0.001, 1e-5))
    assert env.validate(modest).allowed_error == 1e-5
    strict = quick_env(reference="CPU", max_output_error=0.25)
    strict.reset(seed=0)
    found = strict.validate(placement)
    assert (found.reference, found.allowed_error) == ("CPU", 0.25)
    assert math.isnan(found.claimed_speedup)  # it was about another reference


def test_nothing_that_is_stored_is_used(tmp_path: Path) -> None:
    store = tmp_path / "store.sqlite"
    env = DevicePlacementEnv(
        "diamond", TWO_CPUS, store=str(store), isolation="none", max_samples=6, confirmations=0
    )
    env.reset(seed=0)
    reference_s = env.evaluator.evaluate([0] * 4).time_s
    stored = EvaluationStore(store)
    (text,) = [text for (text,) in _rows(store, "SELECT description FROM reference_times")]
    _rows(store, "DELETE FROM reference_times")
    stored.fix_reference(json.loads(text), [1000.0])  # as whoever can write there may do
    before = _rows(store, "SELECT count(*) FROM measurements")
    again = DevicePlacementEnv(
        "diamond", TWO_CPUS, store=str(store), isolation="none", max_samples=6, confirmations=0
    )
    again.reset(seed=0)
    assert again.evaluator.evaluate([0] * 4).time_s == 1000.0
    found = again.validate(MIXED)
    assert found.reference_s < 500 * reference_s
    assert found.reference_s < 1.0
    assert _rows(store, "SELECT count(*) FROM measurements") == before


def _rows(store: Path, question: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        return connection.execute(question).fetchall()


def test_only_what_measures_can_validate_and_claim() -> None:
    env = DevicePlacementEnv("diamond", "CPU,GPU", evaluator="simulator")
    env.reset(seed=0)
    assert env.placement().claim is None
    with pytest.raises(DevicePlacementError, match="evaluator='openvino'"):
        env.validate()
    assert claim_of(measured(), 1, 1.5) == Claim("CPU_F32", 1.5)


def test_groups_that_the_placement_splits_are_refused() -> None:
    placement = Placement.from_groups(measured().coarse, measured().devices, MIXED)
    other = DevicePlacementEnv("diamond", TWO_CPUS, max_groups=2, store=None, isolation="none")
    with pytest.raises(PlacementError, match="several devices"):
        validate_placement(other.evaluator, placement)


@pytest.mark.parametrize(
    "claim",
    [
        {"reference": "CPU", "speedup": "fast"},
        {"reference": "CPU", "speedup": -1.0},
        {"reference": "CPU", "speedup": 0},
        {"reference": "CPU", "speedup": 10**400},
        {"reference": "CPU", "speedup": math.nan},
        {"reference": "CPU", "speedup": math.inf},
        {"reference": "CPU", "speedup": 1.0, "max_output_error": 10**400},
        {"reference": "CPU", "speedup": 1.0, "max_output_error": -1e-9},
        {"reference": "CPU", "speedup": 1.0, "max_output_error": True},
        {"reference": 1, "speedup": 1.0},
        {"reference": "CPU"},
        {"reference": "CPU", "speedup": 1.0, "more": 1},
        [],
    ],
)
def test_a_wrong_claim_is_no_placement(tmp_path: Path, claim: Any) -> None:
    path = tmp_path / "placement.json"
    Placement.from_groups(measured().coarse, measured().devices, MIXED).save(path)
    content = json.loads(path.read_text())
    assert content["claim"] is None
    path.write_text(json.dumps({**content, "claim": claim}))
    with pytest.raises(PlacementError, match="as a placement"):
        Placement.load(path)


def test_the_command_tells_by_its_exit_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "placement.json"
    placement = Placement.from_groups(measured().coarse, measured().devices, MIXED)
    dataclasses.replace(placement, claim=Claim("CPU", 1e-3)).save(path)
    words = ["validate", str(path), "diamond", "--store", "None", "--max-samples", "6"]
    assert main(words) == 0
    assert capsys.readouterr().out.count("holds") == 2
    words += ["--isolation", "none"]
    dataclasses.replace(placement, claim=Claim("CPU", 1e3)).save(path)
    assert main(words) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out
    dataclasses.replace(placement, claim=Claim("CPU_F32", 1e-3, 0.5)).save(path)
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "all on CPU_F32" in text
    assert "the claim allows 0.5" in text
    assert main([*words, "--max-output-error", "0.5"]) == 0
    assert "0.5 is allowed" in capsys.readouterr().out
    assert main(["validate", str(path), chain(tmp_path)]) == 2
    assert "was made for the model 'diamond'" in capsys.readouterr().err
    assert main(["validate", str(tmp_path / "nothing.json"), "diamond"]) == 2
    assert "as a placement" in capsys.readouterr().err


@pytest.mark.parametrize("own", ["hetero", "dataflow"])
def test_the_command_measures_with_the_placements_executor_unless_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    used: list[tuple[str, int]] = []

    def note(evaluator: Any, placement: Placement) -> Any:
        used.append((evaluator.executor.name, evaluator.coarse.num_groups))
        return validate_placement(evaluator, placement)

    monkeypatch.setattr("device_placement.agents.commands.validate.validate_placement", note)
    path = tmp_path / "placement.json"
    placement = Placement.from_groups(measured().coarse, measured().devices, MIXED, own)
    dataclasses.replace(placement, claim=Claim("CPU", 1e-3)).save(path)
    words = ["validate", str(path), "diamond", "--store", "None", "--max-samples", "2"]
    words += ["--isolation", "none", "--max-seconds", "1"]
    assert main(words) == 0
    other = "hetero" if own == "dataflow" else "dataflow"
    assert main([*words, "--executor", other]) == 0
    assert used == [(own, 4), (other, 4)]


def test_pieces_on_devices_of_one_precision_may_round_as_the_reference_does() -> None:
    devices = "CPU_ONE,CPU_OTHER"  # alike, so the singles do not tell how much a cut may change
    evaluator = make_evaluator("two_towers", devices, executor="dataflow", **QUICK)
    alternating = [group % 2 for group in range(evaluator.coarse.num_groups)]
    placement = Placement.from_groups(evaluator.coarse, evaluator.devices, alternating)
    validation = validate_placement(evaluator, placement)
    evaluator.close()
    assert validation.outputs_hold
    assert validation.allowed_error < 0.2
