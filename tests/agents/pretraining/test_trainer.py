"""Pre-trainings that are killed, interrupted and resumed, on one process or two."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from device_placement.agents.cli import main
from device_placement.agents.placers.pretrained.weights import load_weights
from device_placement.agents.pretraining.config import PretrainOptions
from device_placement.agents.pretraining.trainer import Pretraining
from device_placement.agents.pretraining.workers import workers
from device_placement.envs import DevicePlacementError
from platforms import WINDOWS

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = [
    *("pretrain", "--steps", "8", "--problems", "4", "--samples", "4", "--groups", "20"),
    *("--hidden", "16", "--layers", "2", "--validation", "4", "--validate-every", "3"),
]


def checkpoint(path: Path) -> dict[str, torch.Tensor]:
    file = path.with_name(f"{path.stem}_training") / "checkpoint.safetensors"
    return safetensors.torch.load_file(file)


def progress(path: Path) -> dict[str, object]:
    file = path.with_name(f"{path.stem}_training") / "checkpoint.safetensors"
    with safetensors.safe_open(file, framework="pt") as opened:
        found = json.loads(opened.metadata()["progress"])
    del found["seconds"]
    return dict(found)


def assert_equal(one: Path, other: Path) -> None:
    assert progress(one) == progress(other)
    found, expected = checkpoint(one), checkpoint(other)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name
    weights = [load_weights(path)[0].state_dict() for path in (one, other)]
    for name, tensor in weights[1].items():
        assert torch.equal(weights[0][name], tensor), name


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that ran through, in this process."""
    path = tmp_path_factory.mktemp("through") / "a.safetensors"
    assert main([*WORDS, "--jobs", "1", "--out", str(path)]) == 0
    return path


def test_a_training_leaves_weights_a_checkpoint_and_logs(
    through: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, card = load_weights(through)
    assert (network.hidden, card.layers, card.max_groups) == (16, 2, 20)
    assert card.training["step"] in (3, 6, 8)
    assert card.training["problems"] == 4 * card.training["step"]
    assert card.training["settings"]["steps"] == 8
    assert list(through.parent.glob("a_training/tensorboard/events*"))
    validations = progress(through)["validations"]
    assert [one[0] for one in validations] == [3, 6, 8]  # type: ignore[attr-defined]


def test_two_processes_give_the_same_weights(
    through: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "b.safetensors"
    assert main([*WORDS, "--jobs", "2", "--out", str(path)]) == 0
    assert f"weights of step {load_weights(path)[1].training['step']}" in capsys.readouterr().out
    assert_equal(path, through)


@pytest.mark.skipif(WINDOWS, reason="signals of POSIX")
@pytest.mark.parametrize("sent", ["SIGKILL", "SIGINT"])
def test_a_training_that_was_stopped_resumes_as_if_it_had_not_been(
    sent: str, through: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "c.safetensors"
    words = [*WORDS, "--jobs", "1", "--checkpoint-s", "0", "--out", str(path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "device_placement.agents.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    file = path.with_name("c_training") / "checkpoint.safetensors"
    deadline = time.monotonic() + 300
    while not file.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint in five minutes"
        time.sleep(0.01)
    os.kill(process.pid, getattr(signal, sent))
    stdout, stderr = process.communicate(timeout=300)
    if sent == "SIGINT":
        assert process.returncode == 130, stderr
        assert b"Interrupted; resume with --resume --out" in stdout
        assert b"Traceback" not in stderr
    done = progress(path)["step"]
    assert done < 8  # type: ignore[operator]
    words = ["pretrain", "--jobs", "1", "--out", str(path), "--resume"]  # settings are kept
    assert main(words) == 0
    assert "8 steps" in capsys.readouterr().out
    assert_equal(path, through)


def test_nothing_is_overwritten_and_other_settings_are_refused(
    through: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*WORDS, "--out", str(through)]) == 2
    assert "exists; add --resume" in capsys.readouterr().err
    assert main([*WORDS, "--out", str(through), "--resume", "--entropy", "0.5"]) == 2
    assert "has --entropy 0.003, not 0.5; leave the setting out" in capsys.readouterr().err
    assert main([*WORDS, "--out", str(tmp_path / "new.safetensors"), "--resume"]) == 2
    assert "--resume needs --out with the weights of an earlier training" in capsys.readouterr().err
    assert main([*WORDS, "--out", str(tmp_path / "new.zip")]) == 2
    assert "a file whose name ends in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_finished_training_has_nothing_left_to_do(
    through: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = through.read_bytes()
    assert main([*WORDS, "--jobs", "1", "--out", str(through), "--resume"]) == 0
    assert through.read_bytes() == before


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    options = PretrainOptions(steps=1, hidden=16, layers=2)
    training = Pretraining(options, path)
    (training.folder / "checkpoint.safetensors").write_bytes(b"nothing")
    with pytest.raises(DevicePlacementError, match="as a checkpoint"):
        Pretraining(options, path, resume=True)


def test_at_least_one_process_is_needed() -> None:
    with pytest.raises(DevicePlacementError, match="Got jobs=0"), workers(0):
        pass


def test_a_lost_process_ends_the_training_with_advice() -> None:
    message = r"A process of the training ended.*--resume"
    with pytest.raises(DevicePlacementError, match=message), workers(2) as pool:
        pool.submit(os._exit, 1).result()
