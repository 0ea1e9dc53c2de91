from __future__ import annotations

import openvino as ov
import pytest

from device_placement.envs import Device, DeviceError, discover_devices, make_core, parse_devices
from device_placement.envs.devices import FURTHER_CPU, device_names


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
    "text", ["", "CPU:", "1CPU", "CPU:X", "CPU:X=", "CPU:=1", "C PU", "HETERO:CPU"]
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
