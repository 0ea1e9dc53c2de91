from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import openvino as ov
import psutil
import pytest
from openvino.properties.device import Type

from device_placement.envs import (
    Device,
    DeviceError,
    SharedMemory,
    discover_devices,
    make_core,
    parse_devices,
)
from device_placement.envs.cores import cpu_affinity, format_cores
from device_placement.envs.devices import (
    FURTHER_CPU,
    cpu_plugin,
    device_names,
    find_shared_memory,
    with_memory,
)


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("CPU", Device("CPU")),
        (" GPU.0 ", Device("GPU.0")),
        ("CPU_B:NUM_STREAMS=2", Device("CPU_B", (("NUM_STREAMS", "2"),))),
        (
            "CPU_B:NUM_STREAMS=2;INFERENCE_NUM_THREADS=1",
            Device("CPU_B", (("NUM_STREAMS", "2"), ("INFERENCE_NUM_THREADS", "1"))),
        ),
    ],
)
def test_device_strings_are_read_and_written_back(text: str, device: Device) -> None:
    assert Device.parse(text) == device
    assert Device.parse(str(device)) == device


@pytest.mark.parametrize(
    "text", ["", "CPU:", "1CPU", "CPU:X", "CPU:X=", "CPU:=1", "C PU", "HETERO:CPU", "CPU:X=\x1b[2J"]
)
def test_what_is_no_device_string_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match=r"write NAME|give at least one"):
        parse_devices([text])


def test_lists_need_distinct_real_devices() -> None:
    assert [str(one) for one in parse_devices("CPU, GPU.1")] == ["CPU", "GPU.1"]
    for wrong in ([], "CPU,CPU", ""):
        with pytest.raises(DeviceError, match="each name once"):
            parse_devices(wrong)
    with pytest.raises(DeviceError, match="chooses among devices"):
        parse_devices("CPU,AUTO")


def test_auto_always_gives_a_choice() -> None:
    found = parse_devices("auto")
    assert found == discover_devices()
    assert len(found) > 1
    assert found[0].name == "CPU"


def test_a_further_cpu_has_properties_of_its_own() -> None:
    core = make_core(parse_devices(f"CPU,{FURTHER_CPU},CPU_ONE:INFERENCE_NUM_THREADS=1"))
    assert {"CPU", "CPU_F32", "CPU_ONE"} <= set(core.available_devices)
    assert core.get_property("CPU_F32", "INFERENCE_PRECISION_HINT") == ov.Type.f32
    assert core.get_property("CPU_ONE", "INFERENCE_NUM_THREADS") == 1
    assert core.get_property("CPU", "INFERENCE_NUM_THREADS") != 1
    assert set(device_names(core)) == set(core.available_devices)


class Laptop:
    """Properties that OpenVINO reports on an ARM laptop with all kinds of devices."""

    PROPERTIES: ClassVar[dict[tuple[str, str], Any]] = {
        ("GPU.0", "DEVICE_TYPE"): Type.INTEGRATED,
        ("GPU.0", "GPU_DEVICE_TOTAL_MEM_SIZE"): 7_000,
        ("GPU.1", "DEVICE_TYPE"): Type.DISCRETE,
        ("GPU.1", "GPU_DEVICE_TOTAL_MEM_SIZE"): 8_000,
        ("NPU", "DEVICE_TYPE"): Type.INTEGRATED,
        ("NPU", "NPU_DEVICE_TOTAL_MEM_SIZE"): 9_000,
        ("NPU.1", "NPU_DEVICE_TOTAL_MEM_SIZE"): 0,  # by a driver that does not know
    }

    def get_property(self, name: str, key: str) -> Any:
        if (name, key) not in self.PROPERTIES:
            raise RuntimeError(f"Unsupported property {key}")
        return self.PROPERTIES[name, key]

    def get_versions(self, name: str) -> dict[str, Any]:
        return {name: SimpleNamespace(description="openvino_arm_cpu_plugin")}


LAPTOP: Any = Laptop()


def test_devices_have_the_memory_that_openvino_reports() -> None:
    devices = [Device(name) for name in ("CPU", "GPU.0", "GPU.1", "GPU.2", "NPU", "NPU.1")]
    found = with_memory(LAPTOP, [*devices, Device("NPU", memory_bytes=3)])
    assert [one.memory_bytes for one in found] == [None, 7_000, 8_000, None, 9_000, None, 3]


def test_integrated_devices_share_the_hosts_memory() -> None:
    total = psutil.virtual_memory().total
    names = ("CPU", "CPU_B", "GPU.0", "NPU")
    found = find_shared_memory(LAPTOP, [Device(name) for name in (*names, "GPU.1", "NPU.1")])
    assert found == (SharedMemory(names, total),)
    assert find_shared_memory(LAPTOP, [Device("CPU"), Device("GPU.1")]) == ()
    assert find_shared_memory(ov.Core(), [Device("CPU"), Device("CPU_B")]) == ()


def test_further_cpus_are_instances_of_the_plugin_that_is_installed() -> None:
    assert cpu_plugin(LAPTOP) == "openvino_arm_cpu_plugin"
    core = ov.Core()
    here = cpu_plugin(core)
    core.register_plugin(here, "CPU_B")
    assert core.get_versions("CPU_B")["CPU_B"].description == here
    libraries = [path.name for path in (Path(ov.__file__).parent / "libs").iterdir()]
    assert any(here in name for name in libraries)


def test_unknown_devices_and_properties_say_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"Unknown device 'GPU\.7'; this machine has: CPU"):
        make_core("CPU,GPU.7")
    with pytest.raises(DeviceError, match=r"CPU_B.*refuses the properties NO_SUCH=1"):
        make_core(["CPU_B:NO_SUCH=1"])


def test_a_listed_device_that_does_not_load_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The core really tries to load a plugin that is not there, as with a missing driver."""
    real = ov.Core.register_plugin

    def broken(core: ov.Core, plugin: str, name: str) -> None:
        real(core, "no_such_plugin", name)

    monkeypatch.setattr(ov.Core, "register_plugin", broken)
    with pytest.raises(DeviceError, match="lists the device 'CPU_B' but can't load it"):
        make_core(["CPU_B"])


def test_a_device_that_owns_cores_sets_threads_and_no_pinning() -> None:
    device = Device.parse("CPU_0:CORES=0-3+8;INFERENCE_PRECISION_HINT=f32")
    assert device.cores == (0, 1, 2, 3, 8)
    assert Device.parse(str(device)) == device
    assert device.openvino_properties == {
        "INFERENCE_NUM_THREADS": "5",
        "ENABLE_CPU_PINNING": "NO",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    fewer = Device.parse("CPU_0:CORES=0-3;INFERENCE_NUM_THREADS=2;ENABLE_CPU_PINNING=FALSE")
    assert fewer.openvino_properties == {
        "INFERENCE_NUM_THREADS": "2",
        "ENABLE_CPU_PINNING": "FALSE",
    }
    without = Device.parse("CPU_0:NUM_STREAMS=2")
    assert without.cores == ()
    assert without.openvino_properties == {"NUM_STREAMS": "2"}


def test_properties_of_own_cores_reach_openvino() -> None:
    core = make_core([f"CPU_0:CORES={cpu_affinity()[0]}"])
    assert core.get_property("CPU_0", "INFERENCE_NUM_THREADS") == 1
    assert core.get_property("CPU_0", "ENABLE_CPU_PINNING") is False
    assert core.get_property("CPU", "INFERENCE_NUM_THREADS") != 1


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ("CPU_0:CORES=a", r"Can't read CORES=a of the device 'CPU_0'.*as in CPU_0:CORES=0-3\+8\."),
        ("CPU_0:CORES=3-1", r"the range 3-1 ends before it begins"),
        ("CPU:CORES=0", r"Got CORES=0 for the device 'CPU'; only a further CPU instance"),
        ("GPU.0:CORES=0", r"Got CORES=0 for the device 'GPU\.0'; only a further CPU instance"),
        ("NPU:CORES=0", r"for the device 'NPU'; only a further CPU"),
        ("CPU_0:CORES=0;ENABLE_CPU_PINNING=YES", r"ENABLE_CPU_PINNING and CORES for .*'CPU_0'"),
        ("CPU_0:CORES=0;ENABLE_CPU_PINNING=true", r"pinned threads leave its cores\. Leave one"),
        ("CPU_0:CORES=0-2,CPU_1:CORES=2+3", r"Got core 2 for the devices 'CPU_0' and 'CPU_1'"),
        ("CPU_0:CORES=0+0,CPU_1:CORES=0", r"a core can belong to one device\. Give each"),
    ],
)
def test_cores_that_can_not_be_owned_are_refused(devices: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        parse_devices(devices)


def test_cores_that_are_missing_name_those_that_exist() -> None:
    here = format_cores(cpu_affinity())
    with pytest.raises(DeviceError, match=r"Got CORES=.* for the device 'CPU_0', but") as info:
        make_core([f"CPU_0:CORES={cpu_affinity()[0]}+4000-4002"])
    assert f"this process can't use 4000-4002; it may use {here}." in str(info.value)
