"""One writer a folder, of runs and of benchmarks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device_placement.agents.cli import main
from device_placement.agents.runs.folder_lock import LOCK, is_unused, only_writer
from device_placement.envs import DevicePlacementError

SIMULATED = ["--model", "diamond", "--evaluator", "simulator", "--budget", "6", "--rounds", "0"]
HOLD = """
import sys
from pathlib import Path
from device_placement.agents.runs.folder_lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to the folder ``run``."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_until_the_first_is_gone(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(DevicePlacementError, match=r"Another run writes to .*another --out"):
        only_writer(tmp_path / "run").__enter__()
    holder.kill()
    holder.wait()
    with only_writer(tmp_path / "run"), pytest.raises(DevicePlacementError, match="Another run"):
        only_writer(tmp_path / "run").__enter__()
    with only_writer(tmp_path / "run"):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["search", *SIMULATED],
        ["random", *SIMULATED],
        ["train", *SIMULATED],
        ["benchmark", "--suite", "quick", "--placers", "heft"],
    ],
)
def test_commands_leave_the_folder_of_another_run_alone(
    words: list[str],
    holder: subprocess.Popen[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "Another run writes to" in capsys.readouterr().err.splitlines()[-1]
    assert [one.name for one in (tmp_path / "run").iterdir()] == [LOCK]
    holder.kill()


def test_a_resumed_run_is_refused_while_it_is_resumed_already(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ["search", *SIMULATED, "--out", str(out)]
    assert main(words) == 0
    before = {one.name: one.read_bytes() for one in out.iterdir()}
    with only_writer(out):
        assert main([*words, "--resume"]) == 2
    assert "Another run writes to" in capsys.readouterr().err
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before
    assert main([*words, "--resume"]) == 0


def test_what_a_killed_run_left_before_its_first_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).touch()
    assert main(["random", *SIMULATED, "--out", str(tmp_path / "run")]) == 0


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("content")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(DevicePlacementError, match="is a link"):
        only_writer(tmp_path / "run").__enter__()
    assert (tmp_path / "precious").read_text() == "content"


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    run = tmp_path / "run"
    (run / "deep").mkdir(parents=True)
    (run / "inside").symlink_to(run / "deep")
    (tmp_path / "link").symlink_to(run)  # a user's own
    with only_writer(tmp_path / "link"):
        pass
    for name, target in (("a", "mine"), ("deep/b", "mine/not yet"), (LOCK, "mine")):
        (run / name).symlink_to(tmp_path / target)
        with pytest.raises(DevicePlacementError, match="not in the folder"):
            only_writer(run).__enter__()
        (run / name).unlink()
    assert not [*(tmp_path / "mine").iterdir()]


def test_what_a_killed_run_left_is_no_obstacle_and_goes(tmp_path: Path) -> None:
    old, new = (tmp_path / f".config.{digit * 16}.draft.json" for digit in "ab")
    for one in (old, new):
        one.touch()
    assert is_unused(tmp_path)
    os.utime(old, (0, 0))
    (tmp_path / ".config.json").touch()
    os.utime(tmp_path / ".config.json", (0, 0))
    with only_writer(tmp_path):
        assert {one.name for one in tmp_path.iterdir()} == {LOCK, new.name, ".config.json"}
    assert not is_unused(tmp_path)
