"""What the doctor finds and advises."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from device_placement.envs import DevicePlacementError
from device_placement.envs.doctor import DoctorConfig, TimingNoise, gather_facts, run_doctor
from device_placement.envs.execution.lock import machine_lock
from device_placement.envs.health import RULES, Facts, advise

HEALTHY = Facts(
    usable_cores=8,
    logical_cores=8,
    load_per_core=0.01,
    busy=0.01,
    steal=0.0,
    free_memory=16e9,
    governors=("performance",) * 8,
    devices=("CPU", "GPU"),
    noise=0.01,
)
SYMPTOMS: list[tuple[dict[str, Any], str]] = [
    ({"measuring": True}, "Another process is measuring"),
    ({"load_per_core": 0.9}, r"busy \(load 0\.90 a core"),
    ({"busy": 0.4}, r"40% in use now"),
    ({"steal": 0.05}, r"hypervisor gives 5\.0% .* ratios"),
    ({"governors": ("powersave", "performance")}, r"governor is performance, powersave.*cpupower"),
    ({"on_battery": True}, "battery"),
    ({"usable_cores": 2}, "may use 2 of 8 cores"),
    ({"free_memory": 5e8}, r"Only 0\.5 GB"),
    ({"devices": ("CPU",)}, "one device, CPU; a further CPU instance"),
    ({"broken": (("GPU", "can't be loaded: no libOpenCL"),)}, r"GPU \(can't be .*drivers"),
    ({"noise": 0.07}, r"vary by 7\.0%"),
]


def test_nothing_is_advised_when_all_is_well() -> None:
    assert advise(HEALTHY) == []
    assert advise(dataclasses.replace(HEALTHY, governors=(), noise=math.nan)) == []  # not told


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
    assert 1 <= facts.usable_cores <= facts.logical_cores
    assert 0 <= facts.busy <= 1
    assert not facts.measuring
    with machine_lock():
        assert gather_facts().measuring


def test_the_whole_examination(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(DoctorConfig(model="diamond", seconds=0.5)) == 0
    text = capsys.readouterr().out
    for word in ("Devices", "openvino", "governor", "variation, paired", "Advice", "store"):
        assert word in text
    assert run_doctor(DoctorConfig(model="diamond", devices="CPU", seconds=0.001)) == 0
    assert "too few samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "diamnd"}, "Did you mean 'diamond'"),
        ({"devices": "CPU,GPU.9"}, r"Unknown device 'GPU\.9'"),
        ({"seconds": 0.0}, "give more than 0"),
    ],
)
def test_wrong_words_are_told(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        run_doctor(dataclasses.replace(DoctorConfig(model="diamond", seconds=0.1), **change))
