"""Efficiency cores, by what Linux and Windows report of other processors."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from device_placement.envs.measuring.efficiency_cores import (
    efficiency_cores,
    read_linux_files,
    read_windows_records,
)


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ()),
        ({"cpu_core/cpus": "0-15\n", "cpu_atom/cpus": "16-19,23\n"}, (16, 17, 18, 19, 23)),
        ({"cpu_atom/cpus": "4-5\n", "cpu_lowpower/cpus": "6\n"}, (4, 5, 6)),
        (
            {
                "system/cpu/cpu0/cpu_capacity": "446\n",
                "system/cpu/cpu2/cpu_capacity": "1024\n",
                "system/cpu/cpu10/cpu_capacity": "871\n",
                "system/cpu/cpu11/cpu_capacity": "446\n",
            },
            (0, 11),
        ),
        ({"system/cpu/cpu0/cpu_capacity": "1024\n", "system/cpu/cpufreq/cpu_capacity": "1"}, ()),
    ],
)
def test_linux_lists_those_of_intel_and_the_capacity_of_arm(
    files: dict[str, str], expected: tuple[int, ...], tmp_path: Path
) -> None:
    assert read_linux_files(write(tmp_path, files)) == expected


def record(efficiency_class: int, *masks: tuple[int, int]) -> bytes:
    """A SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX of one core, with its threads in groups."""
    groups = b"".join(struct.pack("<QH6x", mask, group) for mask, group in masks)
    head = struct.pack("<BB20xH", 0, efficiency_class, len(masks))
    return struct.pack("<II", 0, 8 + len(head) + len(groups)) + head + groups


def test_windows_gives_each_core_a_class() -> None:
    other = struct.pack("<II8x", 2, 16)  # a cache
    hybrid = record(1, (0b11, 0)) + other + record(0, (0b100, 0)) + record(0, (0b1000, 1))
    assert read_windows_records(hybrid) == (2, 67)
    assert read_windows_records(record(0, (0b11, 0)) + record(0, (0b1100, 0))) == ()
    assert read_windows_records(b"") == ()


def test_those_of_this_machine_are_cores_of_it() -> None:
    assert set(efficiency_cores()) <= set(range(os.cpu_count() or 1))
