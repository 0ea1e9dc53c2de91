"""Lock that allows one writer at a time in a folder of results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from device_placement.envs.errors import DevicePlacementError

LOCK = ".lock"  # in the folder; a killed process leaves the file, which nothing locks any more


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is created if it is missing.

    Raises:
        DevicePlacementError: when another run writes to the folder.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, only_writer(Path(folder)):
    ...     sorted(one.name for one in Path(folder).iterdir())
    ['.lock']
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    if path.is_symlink():
        raise DevicePlacementError(f"{str(path)!r} is a link, not the lock of a run; remove it.")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise DevicePlacementError(
            f"Another run writes to {str(folder)!r}; wait until it ends, or give another --out."
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes it when it is released
            path.unlink()
        lock.release()


def is_unused(folder: Path) -> bool:
    """Return whether a run may write its first files to a path: it is no file, and has no files."""
    if not folder.exists():
        return True
    return folder.is_dir() and all(one.name == LOCK for one in folder.iterdir())
