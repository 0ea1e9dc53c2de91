"""Atomic file replacement."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RETRIES, PAUSE_S = 50, 0.1  # while another program has the target open, on Windows


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a draft to write, which replaces the file at the end.

    The draft is a new file beside the target, of the target's mode. It is written to the disk
    before it replaces the target, so that a loss of power leaves one of the two whole. A symbolic
    link stays, and what it points to is replaced. After an exception the file is unchanged, and
    the draft is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced(Path(folder) / "a.txt") as draft:
    ...         _ = draft.write_text("whole")
    ...     [one.name for one in Path(folder).iterdir()]
    ['a.txt']
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.stem[:64]}.{secrets.token_hex(8)}.draft{target.suffix}")
    with draft.open("xb"):  # fails where something is, a symbolic link included
        pass
    try:
        yield draft
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        _write_to_disk(draft)
        _replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def _write_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _replace(draft: Path, target: Path) -> None:
    """Replace a file, which Windows refuses as long as another program has it open."""
    for left in range(RETRIES if os.name == "nt" else 0, -1, -1):
        try:
            draft.replace(target)
            return
        except PermissionError:
            if not left:
                raise
            time.sleep(PAUSE_S)
