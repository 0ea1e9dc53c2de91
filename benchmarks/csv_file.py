"""CSV files that a benchmark goes on with: read what is there, write behind it."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path


def read_lines(path: str) -> list[dict[str, str]]:
    """The lines of a file by the names in its first one; none when there is no file."""
    if not Path(path).is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write lines behind those of a file, which is made, with its names, when there is none."""
    new = not Path(path).is_file()
    with open(path, "a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *lines] if new else lines)
