"""Resumed runs of strangers: no code runs, and their files reach neither OpenVINO nor the disk."""

from __future__ import annotations

import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.config import TrainConfig
from device_placement.agents.presets.overrides import parse_overrides
from device_placement.agents.runs.config import SearchConfig
from device_placement.agents.runs.resume import resume_config
from device_placement.agents.runs.run import Run
from device_placement.envs.errors import DevicePlacementError
from planted import MEMBERS, plant, works

FLAGS = ("--evaluator", "simulator", "--rounds", "0")
TRAIN = ("train", "diamond", *FLAGS, "--devices", "CPU,GPU", "--budget", "6", "--preset", "ppo")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    assert main([*TRAIN, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "run")


def change(run: Path, **settings: Any) -> None:
    path = run / "config.json"
    content = json.loads(path.read_text())
    content["settings"].update(settings)
    path.write_text(json.dumps(content))


def resume(run: Path, *words: str) -> int:
    return main(["train", "--resume", "--out", str(run), "--budget", "8", *words])


@pytest.mark.parametrize("member", MEMBERS)
def test_no_code_in_a_checkpoint_runs(
    run: Path, tmp_path: Path, member: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "planted"
    plant(run / "policy.zip", member, mark)
    if member == "data":  # it is not read
        assert works(run / "policy.zip", mark)
        assert resume(run) == 0
    else:
        capsys.readouterr()
        assert resume(run) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
        assert "UnpicklingError" in line
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", "SOMEWHERE/store.sqlite"),
        ("devices", "CPU:CACHE_DIR=SOMEWHERE,GPU"),
        ("devices", "CPU:NUM_STREAMS=100000,GPU"),
        ("devices", "CPU:NEVER_HEARD_OF=1,GPU"),
        ("override", "n_steps=1000000000"),
        ("override", "extractor.hidden=1000000"),
        ("override", "extractor.layers=100"),
        ("override", f"extractor.conv={'x' * 100}"),
    ],
)
def test_what_a_file_may_not_set_must_be_repeated(
    run: Path, tmp_path: Path, name: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    value = value.replace("SOMEWHERE", str(place))
    change(run, **{name: value})
    capsys.readouterr()
    assert resume(run) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert f"--resume --out {run} --{name} {value.split(';')[0][:20]}" in error
    with pytest.raises(DevicePlacementError, match=f"--{name}"):
        resume_config(TrainConfig, str(run))
    assert not [*place.iterdir()]


def test_what_is_repeated_is_allowed(run: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "store.sqlite")
    change(run, store=store)
    assert resume(run, "--store", store) == 0


def test_an_interrupted_run_names_all_that_has_to_be_repeated(tmp_path: Path) -> None:
    config = SearchConfig(
        model="diamond",
        devices="CPU,GPU",
        evaluator="simulator",
        store="my store.sqlite",
        out=str(tmp_path / "run"),
    )
    with Run(config, "search") as run:
        summary = run.summary(interrupted=True)
    assert summary.endswith(f"--resume --out {tmp_path / 'run'} --store 'my store.sqlite'")


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"random": {"python": [3, [1, 2], None]}},
        {"envs": []},
        {"envs": [{}]},
        {"num_timesteps": "many"},
        {"algorithm": None},
        {"run": {"asked": 1}},
        {"run": {"asked": [[10**30, 0]], "since_best": 0}},
        {"run": {"asked": [[-5, 0]], "since_best": 0}},
        {"run": {"asked": [[2, -1]], "since_best": 0}},
        {"run": {"asked": [[2, 2]], "since_best": "few"}},
        {"episode_starts": [True] * 7},
        {"num_timesteps": -1},
        {"num_timesteps": 10**30},
        {"algorithm": {"updates": 1, "average": None, "episodes": ["long"]}},
        {"algorithm": {"updates": 1, "average": None, "episodes": [{"r": "x", "l": 1}]}},
        {"algorithm": {"updates": 1, "average": None, "episodes": [{"r": 0.5, "l": []}]}},
    ],
)
def test_a_damaged_state_of_a_training_is_one_line(
    run: Path, damage: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    policy = run / "policy.zip"
    with zipfile.ZipFile(policy) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    state = {**json.loads(content["training.json"]), **damage} if damage else {}
    content["training.json"] = json.dumps(state).encode()
    with zipfile.ZipFile(policy, "w") as archive:
        for name, one in content.items():
            archive.writestr(name, one)
    capsys.readouterr()
    assert resume(run) == 2
    assert "Can't read" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", ["diamond"]),
        ("max_groups", "four"),
        ("seed", None),
        ("reward", 5),
        ("horizon", 1.5),
        ("rounds", True),
        ("store", 3),
        ("timeout_s", "long"),
    ],
)
def test_a_setting_of_another_type_is_refused(
    run: Path, name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    change(run, **{name: value})
    capsys.readouterr()
    assert resume(run) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"the setting {name} is {value!r}; it must be" in line


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
@pytest.mark.parametrize("name", ["evaluations.jsonl", "best_placement.json", "tensorboard/x"])
def test_nothing_is_written_through_a_link(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    capsys.readouterr()
    assert resume(run) == 2
    assert f"is a link to {str(victim)!r}" in capsys.readouterr().err.splitlines()[-1]
    assert victim.read_text() == "mine"


def test_a_value_that_is_nested_deeply_is_a_word() -> None:
    text = "-" * 100_000 + "1"
    assert parse_overrides(f"gamma={text}") == {"gamma": text}
