"""Cores of the processor: which ones this process may use, and which ones a device owns."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping

from device_placement.envs.errors import DeviceError

_LIST = re.compile(r"\d{1,5}(-\d{1,5})?(\+\d{1,5}(-\d{1,5})?)*")


def cpu_affinity() -> list[int]:
    """Return the cores that this process may use; all of them on macOS, which binds none."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    import psutil  # models and placements do without

    if hasattr(psutil.Process, "cpu_affinity"):  # Windows
        return sorted(psutil.Process().cpu_affinity() or range(os.cpu_count() or 1))
    return list(range(os.cpu_count() or 1))


def parse_cores(text: str) -> tuple[int, ...]:
    """Return the cores of a list such as ``0-3+8``, in ascending order, each once.

    Raises:
        ValueError: when the text is no such list.

    >>> parse_cores("8+0-3")
    (0, 1, 2, 3, 8)
    """
    found: set[int] = set()
    if not _LIST.fullmatch(text):
        raise ValueError("it is no list of cores such as 0-3+8")
    for part in text.split("+"):
        first, _, last = part.partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"the range {part} ends before it begins")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def format_cores(cores: Iterable[int]) -> str:
    """Return the list that `parse_cores` reads.

    >>> format_cores([0, 1, 2, 3, 8])
    '0-3+8'
    """
    ordered = sorted(set(cores))
    parts = []
    for _, run in itertools.groupby(enumerate(ordered), lambda pair: pair[1] - pair[0]):
        members = [core for _, core in run]
        ends = members[:1] if len(members) == 1 else [members[0], members[-1]]
        parts.append("-".join(map(str, ends)))
    return "+".join(parts)


def check_separate(cores: Mapping[str, Iterable[int]]) -> None:
    """Check that no two devices own one core.

    Args:
        cores: of each device, by its name.

    Raises:
        DeviceError: when two do.
    """
    owner: dict[int, str] = {}
    for name, owned in cores.items():
        for core in owned:
            if core in owner:
                raise DeviceError(
                    f"Got core {core} for the devices {owner[core]!r} and {name!r}; a core can "
                    "belong to one device. Give each device cores of its own."
                )
            owner[core] = name
