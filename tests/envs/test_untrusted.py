"""Files from elsewhere: what they may set, how large they may be, and one error for the rest."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path

import pytest

from device_placement.envs import Placement
from device_placement.envs.devices import Device, make_core, parse_devices
from device_placement.envs.errors import DeviceError, DevicePlacementError, PlacementError
from device_placement.envs.factory import make_evaluator
from device_placement.envs.simulation.profile import HardwareProfile
from device_placement.envs.simulation.workloads import load_workload
from device_placement.envs.untrusted import (
    FILE_PROPERTIES,
    check_file_devices,
    parse_json,
    read_bytes,
    read_member,
    reading,
)

CACHE = "CPU:CACHE_DIR=/nowhere"


@pytest.mark.parametrize(
    "device",
    [
        CACHE,
        "CPU:LOG_LEVEL=LOG_TRACE",
        "CPU:NUM_STREAMS=1000000000",
        "CPU:INFERENCE_PRECISION_HINT=../../f32",
        "GPU:CONFIG_FILE=/etc/passwd",
        "CPU:INFERENCE_PRECISION_HINT=f32;CACHE_DIR=x",
    ],
)
def test_only_harmless_properties_pass(device: str) -> None:
    with pytest.raises(DeviceError, match="a file may set CORES, CPU_DENORMALS_OPTIMIZATION"):
        check_file_devices(parse_devices(device), "a.json")
    check_file_devices(parse_devices(device), "a.json", trusted=parse_devices(device))


def test_the_usual_properties_pass_and_are_openvinos_own() -> None:
    devices = parse_devices("CPU:NUM_STREAMS=2,CPU_F32:INFERENCE_PRECISION_HINT=f32,GPU.0")
    check_file_devices(devices, "a.json")
    known = {str(name) for name in make_core(["CPU"]).get_property("CPU", "SUPPORTED_PROPERTIES")}
    assert {"NUM_STREAMS", "INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT"} <= known & set(
        FILE_PROPERTIES
    )
    assert "CACHE_DIR" not in FILE_PROPERTIES


def test_devices_in_a_file_are_few() -> None:
    with pytest.raises(DeviceError, match="Got 1000 devices"):
        check_file_devices([Device(f"GPU.{number}") for number in range(1000)], "a.json")


def test_a_placement_and_a_profile_of_a_stranger_are_refused_until_repeated(tmp_path: Path) -> None:
    devices = parse_devices(f"{CACHE},GPU")
    evaluator = make_evaluator("diamond", devices, evaluator="simulator")
    path = tmp_path / "placement.json"
    Placement.from_groups(evaluator.coarse, devices, [0, 1, 0, 1]).save(path)
    with pytest.raises(PlacementError, match="CACHE_DIR=/nowhere for the device 'CPU'"):
        Placement.load(path)
    assert Placement.load(path, devices).devices == devices
    profile = tmp_path / "profile.json"
    evaluator.profile.save(profile)
    with pytest.raises(DevicePlacementError, match="CACHE_DIR"):
        HardwareProfile.load(profile)
    made = make_evaluator("diamond", devices, evaluator="simulator", profile=profile)
    assert made.devices == devices


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "JSONDecodeError"),
        (b"\xff\xfe\x00", "Error"),
        (b"[" * 200_000, "nested too deeply"),
        (b"[]", "TypeError"),
        (b"{}", "KeyError"),
        (b'{"format": "device-placement", "version": 1, "devices": 5}', "TypeError"),
        (b"9" * 5000, "digits"),
    ],
)
def test_whatever_is_wrong_is_one_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "placement.json"
    path.write_bytes(content)
    with pytest.raises(PlacementError, match=f"as a placement of version 1 .*{reason}") as caught:
        Placement.load(path)
    assert "\n" not in str(caught.value)


def test_files_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)  # takes no space
    with pytest.raises(PlacementError, match="larger than 64 MiB"):
        Placement.load(path)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("card", bytes(10 << 20))
    with pytest.raises(ValueError, match="larger than 1 MiB"):
        read_member(tmp_path / "bomb.zip", "card", 1 << 20)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="not a regular file"):
        read_bytes(tmp_path / "pipe")


def test_control_characters_of_a_file_are_escaped() -> None:
    with (
        pytest.raises(DevicePlacementError, match=r"\\x1b\[2J") as caught,
        reading("a.json", "a placement", "give another."),
    ):
        raise ValueError("\x1b[2J" + "x" * 10_000)
    assert len(str(caught.value)) < 400
    assert "\x1b" not in str(caught.value)
    with pytest.raises(ValueError, match="nested"):
        parse_json("[" * 200_000)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *(("maxFPGAs", one) for one in ("1e9", "Infinity", "NaN", "100", '"x"')),
        *(("size", one) for one in ("-1", "Infinity", "NaN", "1e308")),
        *(("fpgaLatency", one) for one in ("-1", "Infinity", "1e308")),
        *(("maxSizePerFPGA", one) for one in ("-1", "Infinity", "NaN", "1e300", "1" + "0" * 400)),
    ],
)
def test_a_workload_of_absurd_size_is_one_error(tmp_path: Path, name: str, number: str) -> None:
    node = {"id": 0, "supportedOnFpga": 1, "cpuLatency": 1, "fpgaLatency": 1, "size": 1}
    content = {"maxFPGAs": 1, "maxSizePerFPGA": 1, "nodes": [node | {"isBackwardNode": 0}]}
    path = tmp_path / "workload.json"
    text = json.dumps({**content, "edges": []}).replace(f'"{name}": 1', f'"{name}": {number}')
    path.write_text(text)
    with pytest.raises(
        DevicePlacementError, match=r"as a workload|Can't use .*(bytes for FPGA|can't be costs)"
    ):
        load_workload(path)
