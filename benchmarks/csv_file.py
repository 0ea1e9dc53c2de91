"""CSV files that a benchmark goes on with: read what is there, write behind it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path


def read_lines(path: str) -> list[dict[str, str]]:
    """The lines of a file by the names in its first one; none when there is no file.

    Half a line at its end, of somebody who was killed, does not count.
    """
    return list(csv.DictReader(io.StringIO(_whole(path), newline="")))


def write_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write a file anew: its names, then its lines."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *lines])


def append_lines(path: str, names: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    """Write lines behind those of a file, which is made, with its names, when there is none."""
    whole = _whole(path)
    if Path(path).is_file():
        with open(path, "r+", encoding="utf-8") as file:
            file.truncate(len(whole.encode()))
    with open(path, "a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines if whole else [names, *lines])


def _whole(path: str) -> str:
    """The text of a file up to the end of its last whole line."""
    if not Path(path).is_file():
        return ""
    with open(path, newline="", encoding="utf-8") as file:
        text = file.read()
    return text[: text.rfind("\n") + 1]
