"""What the doctor finds and advises."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from device_placement.agents.commands import machine_facts
from device_placement.agents.commands.doctor import (
    RULES,
    DoctorConfig,
    TimingNoise,
    advise,
    run_doctor,
)
from device_placement.agents.commands.machine_facts import Facts, gather_facts
from device_placement.envs import DevicePlacementError
from device_placement.envs.measuring.lock import machine_lock
from device_placement.envs.measuring.machine import cpu_affinity

HEALTHY = Facts(
    usable=tuple(range(8)),
    logical_cores=8,
    busy=0.01,
    steal=0.0,
    free_memory=16e9,
    governors=("performance",) * 8,
    devices=("CPU", "GPU"),
    noise=0.01,
)
SYMPTOMS: list[tuple[dict[str, Any], str]] = [
    ({"measuring": True}, "Another process is measuring"),
    ({"busy": 0.4}, r"use 40% of the cores that this one may use \(0-7\); stop"),
    ({"busy": 0.09, "taken": (3,)}, r"use 9% of .*\(0-7\), most of core 3; stop"),
    ({"power_plan": "GUID: 381B4222-f694-41f0-9685-ff5bb260df2e (x)"}, "plan is Balanced"),
    ({"slow_cores": (4, 5, 6, 7)}, "4 of the 8 usable cores are efficiency.*PCORE_ONLY"),
    ({"steal": 0.05}, r"hypervisor gives 5\.0% .* ratios"),
    ({"governors": ("powersave", "performance")}, r"governor is performance, powersave.*cpupower"),
    ({"on_battery": True}, "battery"),
    ({"usable": (0, 1, 5)}, r"may use 3 of 8 cores \(0-1,5\)"),
    ({"free_memory": 5e8}, r"Only 0\.5 GB"),
    ({"devices": ("CPU",)}, "one device, CPU; add a second CPU instance"),
    ({"broken": (("GPU", "can't be loaded: no libOpenCL"),)}, r"GPU \(can't be .*drivers"),
    ({"noise": 0.07}, r"vary by 7\.0%"),
]


def test_nothing_is_advised_when_all_is_well() -> None:
    assert advise(HEALTHY) == []
    assert advise(dataclasses.replace(HEALTHY, governors=(), noise=math.nan, steal=math.nan)) == []
    assert advise(dataclasses.replace(HEALTHY, slow_cores=HEALTHY.usable)) == []  # all alike
    fast = "Power Scheme GUID: 8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c  (High performance)"
    assert advise(dataclasses.replace(HEALTHY, power_plan=fast)) == []


@pytest.mark.parametrize(("change", "message"), SYMPTOMS)
def test_each_symptom_has_its_advice(change: dict[str, Any], message: str) -> None:
    (advice,) = advise(dataclasses.replace(HEALTHY, **change))
    with pytest.raises(ValueError, match=message):
        raise ValueError(advice)


def test_every_rule_is_tried_here() -> None:
    used = {
        number
        for change, _ in SYMPTOMS
        for number, (applies, _) in enumerate(RULES)
        if applies(dataclasses.replace(HEALTHY, **change))
    }
    assert used == set(range(len(RULES)))


def test_variation_is_of_the_medians_of_chunks_and_a_common_drift_cancels_in_pairs() -> None:
    drift = np.repeat([1.0, 2.0, 3.0], 6)
    noise = TimingNoise(np.stack([2 * drift, drift], axis=1))
    assert noise.plain == pytest.approx(0.5)
    assert noise.paired == 0.0
    assert noise.outlier == 1.5
    assert math.isnan(TimingNoise(np.ones((17, 2))).plain)


def test_the_facts_are_this_machines() -> None:
    facts = gather_facts()
    assert "CPU" in facts.devices
    assert facts.usable == tuple(cpu_affinity())
    assert set(facts.taken) | set(facts.slow_cores) <= set(facts.usable)
    assert len(facts.usable) <= facts.logical_cores
    assert 0 <= facts.busy <= 1
    assert not facts.measuring
    with machine_lock():
        assert gather_facts().measuring


class Psutil:
    """Answers in place of what psutil reads from the system."""

    def __init__(self, freq: Any = None, battery: Any = None) -> None:
        self._freq, self._battery = freq, battery

    def cpu_freq(self) -> Any:
        if isinstance(self._freq, Exception):
            raise self._freq
        return self._freq

    def sensors_battery(self) -> Any:
        return self._battery


@pytest.mark.parametrize(
    ("freq", "said"),
    [
        (
            SimpleNamespace(current=2600.0, min=800.0, max=3500.0),
            "2600 MHz now; limits 800 to 3500 MHz",
        ),
        (SimpleNamespace(current=2600.0, min=0.0, max=0.0), "2600 MHz now; limits unknown"),
        (None, "unknown"),
        (NotImplementedError("no file"), "unknown"),
    ],
)
def test_frequency_where_it_is_told(freq: Any, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_facts, "psutil", Psutil(freq=freq))
    assert machine_facts.frequency() == said


@pytest.mark.parametrize(
    ("plugged", "said"), [(True, "mains"), (False, "battery"), (None, "unknown")]
)
def test_power_where_it_is_told(
    plugged: bool | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        machine_facts, "psutil", Psutil(battery=SimpleNamespace(power_plugged=plugged))
    )
    assert machine_facts.power_source() == said
    monkeypatch.setattr(machine_facts, "psutil", Psutil())
    assert machine_facts.power_source() == "unknown"


def test_a_core_that_does_not_tell_its_governor_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu0").write_text("powersave\n")
    (tmp_path / "cpu1").mkdir()  # can't be read
    monkeypatch.setattr(machine_facts, "Path", lambda _: tmp_path)
    monkeypatch.setattr(machine_facts, "GOVERNORS", "cpu*")
    assert machine_facts._governors() == ("powersave",)


def test_waiting_for_a_disk_or_a_hypervisor_is_not_the_work_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    times = [SimpleNamespace(idle=50.0, iowait=30.0, steal=15.0)] * (os.cpu_count() or 1)
    monkeypatch.setattr(machine_facts.psutil, "cpu_times_percent", lambda interval, percpu: times)
    facts = gather_facts()
    assert facts.busy == pytest.approx(0.05)
    assert facts.steal == pytest.approx(0.15)
    assert facts.taken == ()


@pytest.mark.parametrize(
    ("usable", "busy", "taken"),
    [
        ((0, 1, 2, 3), 0.25, (2,)),
        ((0, 1), 0.0, ()),  # what others do elsewhere does not matter
        ((2, 3), 0.5, (2,)),
        ((2, 9), 0.25, (2,)),  # a core is off, so numbers are unknown: all count
    ],
)
def test_only_the_cores_that_this_process_may_use_count(
    usable: tuple[int, ...],
    busy: float,
    taken: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free, full = SimpleNamespace(idle=100.0), SimpleNamespace(idle=0.0)
    times = [free, free, full, free]
    monkeypatch.setattr(machine_facts.psutil, "cpu_times_percent", lambda interval, percpu: times)
    monkeypatch.setattr(machine_facts, "cpu_affinity", lambda: list(usable))
    facts = gather_facts()
    assert (facts.busy, facts.taken) == (busy, taken)
    assert math.isnan(facts.steal)  # Windows and macOS do not know it
    if taken:
        assert any("most of core 2;" in sentence for sentence in advise(facts))


def test_the_whole_examination(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(DoctorConfig(model="diamond", seconds=0.5)) == 0
    text = capsys.readouterr().out
    for word in ("Devices", "openvino", "governor", "frequency", "power", "lock", "store"):
        assert word in text
    for word in ("Timing noise", "reference", "variation, plain", "variation, paired", "Advice"):
        assert word in text
    assert run_doctor(DoctorConfig(model="diamond", devices="CPU", seconds=0.001)) == 0
    assert "too few samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seconds": math.inf}, "finite"),
        ({"seconds": math.nan}, "finite"),
        ({"model": "diamnd"}, "Did you mean 'diamond'"),
        ({"devices": "CPU,GPU.9"}, r"Unknown device 'GPU\.9'"),
        ({"seconds": 0.0}, "give a finite number above 0"),
    ],
)
def test_wrong_words_are_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        run_doctor(dataclasses.replace(DoctorConfig(model="diamond", seconds=0.1), **change))
