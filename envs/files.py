"""Atomic file replacement."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the path of a draft to write, which replaces the file at the end.

    After an exception the file is unchanged, and the draft is removed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced(Path(folder) / "a.txt") as draft:
    ...         _ = draft.write_text("whole")
    ...     [one.name for one in Path(folder).iterdir()]
    ['a.txt']
    """
    target = Path(path)
    draft = target.with_name(f".{target.stem}.{os.getpid()}.draft{target.suffix}")
    try:
        yield draft
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
