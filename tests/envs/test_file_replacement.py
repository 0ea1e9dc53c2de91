"""Replacing a file that another process may have open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_placement.envs import files
from device_placement.envs.files import PAUSES_S, replace_with_retries


class InUseError(PermissionError):
    winerror = 32


def test_a_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "draft").write_text("new")
    (tmp_path / "target").write_text("old")
    replace_with_retries(tmp_path / "draft", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    assert (tmp_path / "target").read_text() == "new"
    with pytest.raises(FileNotFoundError):
        replace_with_retries(tmp_path / "draft", tmp_path / "target")


def refusing(monkeypatch: pytest.MonkeyPatch, errors: Iterator[OSError]) -> None:
    """Let the system refuse as Windows does, and then replace the file for real."""
    real = files.os.replace

    def replace(draft: Path, target: Path) -> None:
        if error := next(errors, None):
            raise error
        real(draft, target)

    monkeypatch.setattr(files.os, "replace", replace)


@pytest.mark.parametrize("refusals", [1, len(PAUSES_S)])
def test_a_file_in_use_is_replaced_later(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, iter([InUseError("in use")] * refusals))
    (tmp_path / "draft").write_text("new")
    pauses: list[float] = []
    replace_with_retries(tmp_path / "draft", tmp_path / "target", pauses.append)
    assert (tmp_path / "target").read_text() == "new"
    assert pauses == list(PAUSES_S[:refusals])


def test_a_file_that_stays_in_use_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch, iter([InUseError("in use")] * (len(PAUSES_S) + 1)))
    (tmp_path / "draft").write_text("new")
    with pytest.raises(InUseError):
        replace_with_retries(tmp_path / "draft", tmp_path / "target", lambda _: None)
    assert (tmp_path / "draft").exists()


def test_an_error_of_another_kind_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, iter([PermissionError("read-only folder")]))
    pauses: list[float] = []
    with pytest.raises(PermissionError, match="read-only"):
        replace_with_retries(tmp_path / "draft", tmp_path / "target", pauses.append)
    assert pauses == []
