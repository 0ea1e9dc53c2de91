"""What identifies a machine, on systems that tell little."""

from __future__ import annotations

import os
from pathlib import Path

import openvino as ov
import psutil
import pytest

from device_placement.envs.measuring import machine
from device_placement.envs.measuring.machine import cpu_affinity, processor_name


def test_the_processor_is_named_by_linux_or_by_openvino(tmp_path: Path) -> None:
    intel, arm = tmp_path / "intel", tmp_path / "arm"
    intel.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n", encoding="utf-8")
    arm.write_text("processor\t: 0\nCPU implementer\t: 0x41\n", encoding="utf-8")
    assert processor_name(intel) == "Some CPU @ 3 GHz"
    named = ov.Core().get_property("CPU", "FULL_DEVICE_NAME").strip()
    assert processor_name(arm) == processor_name(tmp_path / "none") == named
    assert named


def test_cores_are_known_without_the_call_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(psutil.Process, "cpu_affinity"):
        pytest.skip("this system binds no process to cores")
    cores = cpu_affinity()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)  # as on Windows
    assert machine.cpu_affinity() == cores
    monkeypatch.delattr(psutil.Process, "cpu_affinity")  # as on macOS
    assert machine.cpu_affinity() == list(range(os.cpu_count() or 1))
