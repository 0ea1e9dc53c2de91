"""Atomic replacement: links, modes, threads, exceptions, and drafts that nobody can plant."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import replaced

posix = pytest.mark.skipif(sys.platform == "win32", reason="links and modes of POSIX")


def write(path: Path, text: str) -> None:
    with replaced(path) as draft:
        draft.write_text(text)


def test_an_exception_leaves_the_file_and_no_draft(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "old")
    with pytest.raises(TypeError), replaced(tmp_path / "a.txt") as draft:
        draft.write_text("half"), draft.write_text(None)  # type: ignore[arg-type]
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.txt", "old")]


@posix
def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    write(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@posix
def test_the_mode_stays(tmp_path: Path) -> None:
    path = tmp_path / "secret.txt"
    path.write_text("old")
    path.chmod(0o600)
    write(path, "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
def test_a_new_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual.txt").write_text("")
    write(tmp_path / "new.txt", "new")
    modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert len(modes) == 1


def test_threads_write_one_file_and_one_of_them_wins(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for _ in range(50):
                write(tmp_path / "a.txt", name * 1000)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    (path,) = tmp_path.iterdir()
    assert path.read_text() in {name * 1000 for name in "abcd"}


def test_no_two_drafts_have_one_name(tmp_path: Path) -> None:
    with replaced(tmp_path / "a.txt") as first, replaced(tmp_path / "a.txt") as second:
        assert first != second
        assert first.suffix == ".txt"


@posix
def test_a_pipe_and_a_folder_are_not_replaced(tmp_path: Path) -> None:
    pipe, folder, link = (tmp_path / name for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    folder.mkdir()
    link.symlink_to(pipe)
    for path in (pipe, folder, link):
        with pytest.raises(DevicePlacementError, match="a folder, a device or a pipe"):
            write(path, "new")
    assert pipe.is_fifo()
    assert {one.name for one in tmp_path.iterdir()} == {"pipe", "folder", "link"}
