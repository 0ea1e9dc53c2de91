"""Faults of the system and absurd options: one line, the right status, and an end."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.agents.cli import exit_status, main

FLAGS = ("--evaluator", "simulator", "--devices", "CPU,GPU", "--rounds", "0")
posix = pytest.mark.skipif(sys.platform == "win32", reason="folders of Linux")


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = main(words)
    return status, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "out",
    [
        pytest.param("FILE/run", marks=posix),
        pytest.param("/proc/nothing/run", marks=posix),
        "FOLDER/" + "x" * 300,
        "FOLDER/nul\0",
    ],
)
@pytest.mark.parametrize("command", ["search", "train", "random"])
def test_a_folder_that_can_not_be_made(
    command: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    out = out.replace("FILE", str(tmp_path / "file")).replace("FOLDER", str(tmp_path))
    status, line = run(command, "diamond", *FLAGS, "--budget", "4", "--out", out, capsys=capsys)
    assert status in (1, 2)
    assert line.startswith("device-placement: ")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run/config.json"), "run/config.json"),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone"), "gone"),
        (MemoryError("3 TiB"), "too little memory. 3 TiB"),
    ],
)
def test_a_fault_of_the_system_is_one_line(
    fault: BaseException, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise fault

    assert exit_status("program", command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("program: ")
    assert said in line


@posix
@pytest.mark.parametrize("command", ["search", "train"])
def test_a_full_disk_in_a_run(command: str, tmp_path: Path) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    code = f"""
        import resource, signal, sys
        from device_placement.agents.cli import main
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        sys.exit(main({[command, "diamond", *FLAGS, "--budget", "9", "--out", "run"]}))
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1, found.stderr
    assert "Traceback" not in found.stderr
    assert "File too large" in found.stderr.splitlines()[-1]
    assert not [*(tmp_path / "run").glob(".*draft*")]


@pytest.mark.parametrize("command", ["search", "train", "random"])
@pytest.mark.parametrize("seed", ["-1", str(2**32)])
def test_a_seed_that_no_generator_takes(
    command: str, seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("diamond", *FLAGS, f"--seed={seed}", "--out", str(tmp_path / "run"))
    status, line = run(command, *words, capsys=capsys)
    assert (status, f"Got seed={seed}" in line) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("placer", ["random", "genetic", "cross_entropy", "annealing"])
def test_a_budget_above_the_number_of_placements_ends(placer: str, tmp_path: Path) -> None:
    words = ("diamond", *FLAGS, "--budget", str(10**12), "--out", str(tmp_path / "run"))
    assert main(["search", *words, "--placer", placer]) == 0
    assert (tmp_path / "run" / "evaluations.jsonl").read_text().count("\n") == 16


@pytest.mark.parametrize("command", ["search", "train"])
def test_a_model_that_takes_no_time(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x = ops.parameter([1, 2], np.float32, name="x")
    model = ov.Model([ops.result(ops.constant(np.ones((1, 2), np.float32)))], [x], "constant")
    ov.save_model(model, tmp_path / "constant.xml")
    words = (str(tmp_path / "constant.xml"), *FLAGS, "--out", str(tmp_path / "run"))
    status, line = run(command, *words, "--budget", "4", capsys=capsys)
    assert status == 2
    assert "in no time" in line


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status, line = run("search", "\x1b[2Jmodel", *FLAGS, capsys=capsys)
    assert status == 2
    assert "\x1b" not in line


@posix
def test_names_of_files_do_not_reach_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a\x1b[2Jb"
    assert main(["search", "diamond", *FLAGS, "--budget", "4", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert r"a\x1b[2Jb" in printed
    assert "\x1b" not in printed


def test_negative_rounds_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("diamond", *FLAGS[:4], "--rounds=-1", "--out", str(tmp_path / "run"))
    status, line = run("search", *words, capsys=capsys)
    assert (status, "must be 0 or more" in line) == (2, True)


@pytest.mark.parametrize("command", ["search", "train", "random"])
def test_a_budget_that_no_counter_holds(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("diamond", *FLAGS, "--budget", str(10**400), "--out", str(tmp_path / "run"))
    status, line = run(command, *words, capsys=capsys)
    assert (status, "give at most 900719925474099" in line) == (2, True)
    assert not (tmp_path / "run").exists()
