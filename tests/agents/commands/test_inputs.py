"""The option `--inputs` of the commands that measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_placement.agents.cli import main
from device_placement.agents.commands.config import TrainConfig
from device_placement.envs import DevicePlacementError, Placement, save_inputs
from device_placement.envs.models.loading import save_model
from input_models import DEVICES, looped, mixed, random_numbers, two_rates

QUICK = ["--isolation", "none", "--max-samples", "2", "--confirmations", "0", "--store", "none"]
X = np.ones((32, 32), np.float32)


def search(out: Path, *words: str) -> int:
    options = ["--devices", DEVICES, "--coarsening", "none", "--budget", "3", "--rounds", "0"]
    return main(["search", *options, *QUICK, "--placer", "random", "--out", str(out), *words])


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and two files of inputs."""
    folder = tmp_path_factory.mktemp("rates")
    save_model(two_rates(), folder / "model.xml")
    save_inputs(folder / "one.npz", [{"x": X, "rate": 16000}])
    save_inputs(folder / "two.npz", [{"x": X, "rate": 16000}, {"x": X, "rate": 8000}])
    return folder


def test_a_run_knows_its_inputs(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, inputs = tmp_path / "run", tmp_path / "inputs.npz"
    inputs.write_bytes((rates / "two.npz").read_bytes())
    assert search(out, str(rates / "model.xml"), "--inputs", str(inputs)) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["settings"]["inputs"] == str(inputs)
    assert len(config["inputs"]) == 32
    claim = Placement.load(out / "best_placement.json").claim
    assert claim is not None
    assert claim.inputs == config["inputs"]
    again = ["search", "--resume", "--out", str(out), "--budget", "4"]
    assert main(again) == 0
    inputs.write_bytes((rates / "one.npz").read_bytes())
    assert main(again) == 2
    assert "has other input values than" in capsys.readouterr().err


def test_validate_checks_a_claim_for_the_same_inputs_only(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = str(rates / "model.xml"), tmp_path / "run"
    assert search(out, model, "--inputs", str(rates / "one.npz")) == 0
    command = ["validate", str(out / "best_placement.json"), model, *QUICK]
    for name, claimed in (("one.npz", True), ("two.npz", False)):
        capsys.readouterr()
        assert main([*command, "--inputs", str(rates / name)]) in (0, 1)
        text = capsys.readouterr().out
        assert ("was claimed" in text) == claimed
        assert ("its claim is for other inputs" in text) != claimed


def test_validate_has_a_status_for_outputs_that_it_can_not_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(random_numbers(), tmp_path / "model.xml")
    out, model = tmp_path / "run", str(tmp_path / "model.xml")
    assert search(out, model, "--verify") == 0
    assert "Outputs are not verified. The reference's outputs differ" in capsys.readouterr().out
    status = main(["validate", str(out / "best_placement.json"), model, *QUICK])
    text = capsys.readouterr().out
    assert "CAN'T BE JUDGED" in text
    assert status == (1 if "DOES NOT HOLD" in text else 3)


def test_profile_and_doctor_take_inputs(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(rates / "model.xml"), "--devices", DEVICES]
    given = ["--inputs", str(rates / "two.npz")]
    out = tmp_path / "profile.json"
    assert main(["profile", *model, *given, *QUICK, "--placements", "4", "--out", str(out)]) == 0
    assert len(json.loads(out.read_text())["provenance"]["inputs"]) == 32
    assert main(["doctor", *model, *given, "--seconds", "0.01"]) == 0
    capsys.readouterr()
    for command in (["profile", "--out", str(out)], ["doctor"]):
        assert main([*command, *model, "--inputs", "missing.npz"]) == 2
        assert "Can't read the inputs 'missing.npz'" in capsys.readouterr().err


def test_inspect_names_the_inputs_that_decide_what_runs(
    rates: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(looped(), tmp_path / "looped.xml")
    save_model(mixed(), tmp_path / "mixed.xml")
    found = {
        str(rates / "model.xml"): "'rate' of 'model' decides which ops run",
        str(tmp_path / "looped.xml"): "'trips', 'x', 'limit' of 'model' decide which ops run",
        str(tmp_path / "mixed.xml"): "",
    }
    for path, expected in found.items():
        assert main(["inspect", path, "--devices", DEVICES]) == 0
        text = capsys.readouterr().out
        assert ("\nInputs\n" in text) == bool(expected)
        assert expected in text


def test_the_command_says_in_one_line_what_is_invented(rates: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "device_placement.agents.cli", "search", *QUICK]
    command += [str(rates / "model.xml"), "--devices", DEVICES, "--budget", "3", "--rounds", "0"]
    done = subprocess.run(
        [*command, "--placer", "single", "--out", str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [
        line for line in done.stderr.splitlines() if "InventedInputs" in line or "rate" in line
    ]
    assert len(lines) == 1
    assert lines[0].startswith("device-placement: 'rate' of 'model' decides which ops run")
    assert lines[0].endswith("or --inputs FILE.npz on the command line.")


@pytest.mark.parametrize(
    ("model", "inputs", "files"),
    [
        ("resnet50", "", ("",)),
        ("resnet50", "a,b.npz", ("a,b.npz",)),
        ("resnet50,bert_base", "", ("", "")),
        ("resnet50,bert_base", "a.npz, b.npz", ("a.npz", "b.npz")),
        ("resnet50,bert_base", ",b.npz", ("", "b.npz")),
    ],
)
def test_several_models_have_a_file_each(model: str, inputs: str, files: Any) -> None:
    assert TrainConfig(model=model, inputs=inputs).input_files == files


def test_files_and_models_have_the_same_number() -> None:
    with pytest.raises(DevicePlacementError, match=r"inputs='a.npz' for 2 models; give one file"):
        _ = TrainConfig(model="resnet50,bert_base", inputs="a.npz").input_files
