"""Lock that allows one writer at a time in a folder of results, and no writing out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.files import is_draft, remove_old_drafts

LOCK = ".lock"  # in the folder; a killed process leaves the file, which nothing locks any more


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it is missing; remove what killed runs left.

    Raises:
        DevicePlacementError: when another run writes to the folder, or as `check_links`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_writer(Path(folder)):
    ...     sorted(one.name for one in Path(folder).iterdir())
    ['.lock']
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_links(folder)
    path = folder / LOCK
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DevicePlacementError(
            f"Another run writes to {str(folder)!r}; wait until it ends, or give another --out."
        ) from error
    try:
        remove_old_drafts(folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it when it is released
            path.unlink()
        lock.release()


def is_unused(folder: Path) -> bool:
    """Return whether a run may write its first files to a path: it is no file, and has no files."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        one.name == LOCK or is_draft(one.name) for one in folder.iterdir()
    )


def check_links(folder: Path) -> None:
    """Check that no file or folder in a folder is a link that leads out of it.

    Files of a stranger's folder would else be written elsewhere.

    Raises:
        DevicePlacementError: when one is.
    """
    home = Path(os.path.realpath(folder))
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            target = Path(os.path.realpath(path)) if path.is_symlink() else home
            if not target.is_relative_to(home):
                raise DevicePlacementError(
                    f"{str(path)!r} is a link to {str(target)!r}, which is not in the folder, so "
                    "results would be written elsewhere; replace it by what it leads to."
                )
