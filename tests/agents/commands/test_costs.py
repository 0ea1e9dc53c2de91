"""Agents that see costs, by the commands: trained, resumed, and on a model that is new to them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.config import TrainConfig
from device_placement.agents.commands.train import train
from device_placement.agents.runs.resume import resume_config
from device_placement.agents.training.policy_file import CARD, PolicyCard, load_policy, read_card
from device_placement.envs import DevicePlacementError, make_evaluator
from given_profiles import given_costs
from problems import TWO_CPUS, measured
from runs import MEASURING, lines
from scripted import simulated_diamond

SIMULATED: dict[str, Any] = {"evaluator": "simulator", "hardware": "paper", "max_groups": 12}
FLAGS = ["--evaluator", "simulator", "--hardware", "paper", "--max-groups", "12"]
MEASURED = ["diamond", "--devices", TWO_CPUS, "--budget", "5", "--rounds", "0", "--store", "none"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that saw costs."""
    out = tmp_path_factory.mktemp("runs") / "costs"
    config = TrainConfig(
        **SIMULATED,
        preset="nodewise_ppo",
        formulation="construct",
        override="extractor.hidden=16;n_epochs=1",
        costs="profile",
        budget=20,
        samples=2,
        rounds=2,
        out=str(out),
    )
    assert train(config) == 0
    return out


def test_a_card_says_that_costs_were_seen(trained: Path) -> None:
    card = read_card(trained / "policy.zip")
    assert card.costs == "profile"
    assert card.sees_costs
    space = card.make_env(make_evaluator("resnet50", **SIMULATED)).observation_space
    assert "partial_schedule" in space.spaces  # type: ignore[attr-defined]
    names = {row["name"] for row in json.loads((trained / "result.json").read_text())["rows"]}
    assert "trained policy, greedy" in names


def test_a_resumed_training_sees_costs_again(trained: Path) -> None:
    first = lines(trained)
    assert train(resume_config(TrainConfig, str(trained), budget=30, rounds=0)) == 0
    assert lines(trained)[: len(first)] == first
    assert len(lines(trained)) > len(first)
    assert read_card(trained / "policy.zip").costs == "profile"


def test_a_policy_that_sees_costs_places_another_model(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "placed"
    words = ["place", "inception_v3", "--policy", str(trained / "policy.zip"), *FLAGS]
    more = ["--samples", "2", "--finetune", "5", "--rounds", "0", "--out", str(out)]
    assert main([*words, *more]) == 0
    assert read_card(out / "policy.zip") == read_card(trained / "policy.zip")


def change_card(source: Path, target: Path, **changes: Any) -> None:
    """Copy a policy with another card; a value of None removes a key."""
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w") as changed:
        for name in whole.namelist():
            content = whole.read(name)
            if name == CARD:
                card = {**json.loads(content), **changes}
                content = json.dumps({k: v for k, v in card.items() if v is not None}).encode()
            changed.writestr(name, content)


def test_a_policy_of_an_earlier_version_sees_none(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "plain"
    config = TrainConfig(
        **SIMULATED,
        preset="nodewise_ppo",
        override="extractor.hidden=16;n_epochs=1",
        budget=10,
        rounds=0,
        out=str(out),
    )
    assert train(config) == 0
    change_card(out / "policy.zip", tmp_path / "old.zip", costs=None)
    card = read_card(tmp_path / "old.zip")
    assert card.costs == "none"
    assert card == read_card(out / "policy.zip")
    load_policy(tmp_path / "old.zip", card.make_env(make_evaluator("resnet50", **SIMULATED)))


def test_weights_that_saw_costs_do_not_fit_a_card_that_says_otherwise(
    trained: Path, tmp_path: Path
) -> None:
    change_card(trained / "policy.zip", tmp_path / "other.zip", costs="none")
    env = read_card(tmp_path / "other.zip").make_env(make_evaluator("resnet50", **SIMULATED))
    with pytest.raises(DevicePlacementError, match="do not fit"):
        load_policy(tmp_path / "other.zip", env)
    change_card(trained / "policy.zip", tmp_path / "wrong.zip", costs="all")
    with pytest.raises(DevicePlacementError, match="Unknown costs 'all'"):
        read_card(tmp_path / "wrong.zip")


def test_a_card_takes_the_preset_s_costs_unless_told() -> None:
    evaluators = [simulated_diamond()]
    assert PolicyCard.of("ppo", None, evaluators).costs == "none"
    assert PolicyCard.of("ppo", None, evaluators, "profile").costs == "profile"


@pytest.mark.parametrize("profile", [None, "auto", "a file"])
def test_where_placements_are_measured_the_costs_are_those_of_a_profile(
    profile: str | None, tmp_path: Path
) -> None:
    out, words = tmp_path / "run", ["train", *MEASURED, "--preset", "nodewise_ppo"]
    more = [] if profile is None else ["--profile", str(profile)]
    if profile == "a file":
        more[1] = str(tmp_path / "profile.json")
        given_costs(measured().coarse, 2).save(more[1])
    measuring = ["--max-samples", str(MEASURING["max_samples"]), "--confirmations", "0"]
    assert main([*words, *measuring, *more, "--costs", "profile", "--out", str(out)]) == 0
    assert len(lines(out)) == 5
    assert read_card(out / "policy.zip").costs == "profile"
    placing = ["place", *MEASURED[:3], "--policy", str(out / "policy.zip"), "--samples", "1"]
    last = ["--rounds", "0", "--store", "none", "--out", str(tmp_path / "placed")]
    assert main([*placing, *measuring, *more, *last]) == 0


def test_wrong_costs_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def error(*words: str) -> str:
        assert main(["train", *words, "--out", str(tmp_path / "run")]) == 2
        return capsys.readouterr().err

    assert "Unknown costs 'profil'; allowed: none, profile" in error(
        "diamond", *FLAGS, "--costs", "profil"
    )
    other = given_costs(make_evaluator("resnet50", TWO_CPUS, store=None).coarse, 2)
    other.save(tmp_path / "other.json")
    given = ["--profile", str(tmp_path / "other.json")]
    assert not (tmp_path / "run").exists()
    said = error(*MEASURED, *given)
    assert "the agent sees no costs; add --costs profile" in said
    assert not (tmp_path / "run").exists()
    said = error(*MEASURED, "--max-samples", "2", *given, "--costs", "profile")
    assert "resnet50" in said
    assert "diamond" in said
