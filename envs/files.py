"""Atomic file replacement."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from device_placement.envs.errors import DevicePlacementError

IN_USE = (5, 32)  # Windows: access denied, sharing violation
OLD_S = 3600.0  # after which no one writes a draft any more
PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0, 1.0)  # about 5 seconds in all


@contextlib.contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a draft to write, which replaces the file at the end.

    The draft is a new file beside the target, of the target's mode. It is written to the disk
    before it replaces the target, so that a loss of power leaves one of the two whole. A symbolic
    link stays, and what it points to is replaced. After an exception the file is unchanged, and
    the draft is removed.

    Raises:
        DevicePlacementError: when the target is a folder, a device or a pipe, which a file must
            not replace.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced(Path(folder) / "a.txt") as draft:
    ...         _ = draft.write_text("whole")
    ...     [one.name for one in Path(folder).iterdir()]
    ['a.txt']
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise DevicePlacementError(
            f"Can't write {str(path)!r}: it is a folder, a device or a pipe; give a file."
        )
    draft = target.with_name(f".{target.stem[:64]}.{secrets.token_hex(8)}.draft{target.suffix}")
    with draft.open("xb"):  # fails where something is, a symbolic link included
        pass
    try:
        yield draft
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        _write_to_disk(draft)
        replace_with_retries(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def is_draft(name: str) -> bool:
    """Return whether a name is that of a draft, which a killed process leaves."""
    return re.fullmatch(r"\..*\.[0-9a-f]{16}\.draft(\..*)?", name, flags=re.DOTALL) is not None


def remove_old_drafts(folder: Path) -> None:
    """Remove the drafts in a folder, and in those in it, that killed processes left."""
    for path in folder.rglob(".*.draft*"):
        with contextlib.suppress(OSError):  # of another user, say
            if is_draft(path.name) and time.time() - path.lstat().st_mtime > OLD_S:
                path.unlink()


def _write_to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def replace_with_retries(
    draft: str | os.PathLike[str],
    target: str | os.PathLike[str],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Move a file to where another one may be, as `os.replace` does.

    Windows refuses this while a virus scanner, an indexer or a reader has one of them open. It
    is then tried again for about 5 seconds. Other systems allow it, so their errors are final.

    Args:
        draft: the file to move.
        target: in the same folder.
        pause: waits for some seconds.

    Raises:
        OSError: when the file can't be moved.
    """
    for pause_s in PAUSES_S:
        try:
            os.replace(draft, target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            pause(pause_s)
        else:
            return
    os.replace(draft, target)
