"""The command line: help, and one line about a wrong word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.agents.cli import COMMANDS, main
from device_placement.envs import ModelError, load_model


def test_help_names_every_command_and_each_has_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main([]) == 2
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0
        assert f"device-placement {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "Unknown command 'trian'.*Did you mean 'train'"),
        (["train", "--presett", "ppo"], "Unknown option --presett; did you mean --preset?"),
        (["train", "--budget", "many"], "Got --budget many; give a whole number"),
        (["train", "--objective", "latncy"], "Unknown objective 'latncy'.*mean 'latency'"),
        (["train", "resnet50", "--model", "diamond"], "'diamond' and 'resnet50' as MODEL"),
        (["devices", "CPU"], "Unexpected argument 'CPU'; usage: device-placement devices"),
        (["validate", "placement.json"], "MODEL is missing; usage: .* validate PLACEMENT MODEL"),
        (["train", "--preset", "pp0"], "Unknown preset 'pp0'"),
        (["train", "--override", "learning_rate"], "Got 'learning_rate' as a setting"),
        (["train", "--override", "lr=1"], "Unknown setting 'lr'"),
        (["train", "--formulation", "asign"], "Unknown formulation of ppo 'asign'"),
        (["train", "--torch-device", "gpu"], "torch can't use the device 'gpu'"),
        (["train", "--reward", "invers"], "Unknown reward 'invers'"),
        (["train", "--model", "resnet5"], "resnet5.*Did you mean 'resnet50'"),
        (["train", "resnet5"], "resnet5.*Did you mean 'resnet50'"),
        (["train", "--devices", "CPU,GPU.7"], r"Unknown device 'GPU\.7'; this machine has: CPU"),
        (["random", "--devices", "CPU"], "Got one device"),
        (["inspect", "nothing.onnx"], r"No model file 'nothing\.onnx'"),
        (["random", "--model", "diamond", "--budget", "1"], "budget of 1"),
    ],
)
def test_a_wrong_word_is_one_line_and_leaves_nothing(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_command_imports_nothing_heavy_to_answer_help() -> None:
    code = (
        "import sys; from device_placement.agents.cli import main; main(['--help']); "
        "sys.exit(bool({'torch', 'openvino', 'gymnasium', 'tyro'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_imports_nothing_heavy(name: str) -> None:
    heavy = "torch stable_baselines3 openvino numba scipy networkx matplotlib pandas sqlite3"
    code = (
        "import sys; from device_placement.agents.cli import main\n"
        f"try: main([{name!r}, '--help'])\n"
        f"except SystemExit: sys.exit(' '.join(set({heavy.split()}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert f"device-placement {name}" in done.stdout


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("words", [["--help"], ["benchmark", "--help"]])
def test_a_reader_that_goes_is_no_error(
    words: list[str], buffered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", "" if buffered else "1")
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "device_placement.agents.cli", *words]
    with open(writing, "wb") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_error_of_a_command_names_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = ops.parameter(ov.PartialShape([-1, 8]), np.float32, name="x")
    ov.save_model(ov.Model([ops.result(ops.relu(x))], [x], "dynamic"), tmp_path / "dynamic.xml")
    path = str(tmp_path / "dynamic.xml")
    assert main(["inspect", path, "--devices", "CPU"]) == 2
    advice = re.search(r'--input-shapes "(.*)"\.$', capsys.readouterr().err)
    assert advice
    assert main(["inspect", path, "--devices", "CPU", "--input-shapes", advice[1]]) == 0
    with pytest.raises(ModelError, match=r'input_shapes=\{"x": \[1, 8\]\}\.$'):
        load_model(path)
