"""Data-sheet numbers of machines, for simulation without the hardware; data only.

Peaks are of the precision that OpenVINO prefers: f32 on CPUs, f16 on GPUs and NPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # this module is light to import
    from device_placement.envs.devices import SharedMemory

MIB = 2**20
GIB = 2**30


@dataclass(frozen=True)
class DeviceSheet:
    """Data-sheet numbers of a device."""

    title: str
    flops_per_s: float  # peak, a multiply-add counts as two
    bytes_per_s: float  # of its memory
    launch_s: float  # to start one op
    efficiency: Mapping[str, float]  # op class -> share reached of the peak or of the bandwidth
    memory_bytes: int | None = None  # None: host memory, not limited here
    lacks: tuple[str, ...] = ()  # op types that it can't run


@dataclass(frozen=True)
class Link:
    """A connection between two devices."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Hardware:
    """Machine: its devices by their OpenVINO names, and the links between them."""

    title: str
    devices: Mapping[str, DeviceSheet]
    default: tuple[str, ...]  # the devices that ``auto`` means
    link: Link  # between any two devices
    links: Mapping[tuple[str, str], Link] = field(default_factory=dict)  # where it differs
    sources: tuple[str, ...] = ()  # where the numbers are from
    shared_memory: tuple[SharedMemory, ...] = ()  # limits on what devices hold together
    constraints: tuple[str, ...] = ()  # that placements must satisfy, unless others are given
    schedule: str = "sequential"  # unless another one is given


# Share of the peak that large, regular ops reach, and of the bandwidth that the others reach.
CPU_EFFICIENCY = {"convolution": 0.55, "product": 0.65, "memory": 0.6}
GPU_EFFICIENCY = {"convolution": 0.35, "product": 0.5, "memory": 0.7}
NPU_EFFICIENCY = {"convolution": 0.5, "product": 0.35, "memory": 0.4}

I9_12900K = DeviceSheet(
    "Intel Core i9-12900K",
    flops_per_s=1.7e12,  # 8 P-cores at 4.9 GHz x 32 + 8 E-cores at 3.7 GHz x 16, AVX2
    bytes_per_s=76.8e9,  # two channels of DDR5-4800
    launch_s=1e-6,
    efficiency=CPU_EFFICIENCY,
)
UHD_770 = DeviceSheet(
    "Intel UHD Graphics 770",
    flops_per_s=1.59e12,  # 32 execution units at 1.55 GHz x 32, f16
    bytes_per_s=76.8e9,  # shares the CPU's memory
    launch_s=6e-6,
    efficiency=GPU_EFFICIENCY,
)
FLEX_170 = DeviceSheet(
    "Intel Data Center GPU Flex 170",
    flops_per_s=128e12,  # 32 Xe cores, matrix engines, f16
    bytes_per_s=576e9,  # 16 GB of GDDR6
    launch_s=4e-6,
    efficiency=GPU_EFFICIENCY,
    memory_bytes=16 * GIB,
)
PCIE_4 = Link(latency_s=10e-6, bytes_per_s=25e9)  # 16 lanes: 31.5 GB/s less overhead
SHARED_MEMORY = Link(latency_s=5e-6, bytes_per_s=30e9)

MCM_CHIPS = 36
MCM_CHIP = DeviceSheet(
    "a chip with 128 MiB of SRAM",
    flops_per_s=4e12,
    bytes_per_s=500e9,
    launch_s=0.2e-6,
    efficiency={"convolution": 0.5, "product": 0.5, "memory": 0.5},
    memory_bytes=128 * MIB,
)

HARDWARE: Mapping[str, Hardware] = {
    "desktop": Hardware(
        "a desktop in round numbers: CPU, mid-range GPU, NPU",
        {
            "CPU": DeviceSheet("a CPU", 1e12, 60e9, 1e-6, CPU_EFFICIENCY),
            "GPU": DeviceSheet("a GPU", 20e12, 300e9, 8e-6, GPU_EFFICIENCY),
            "NPU": DeviceSheet("an NPU", 8e12, 60e9, 5e-6, NPU_EFFICIENCY),
        },
        default=("CPU", "GPU"),
        link=Link(latency_s=10e-6, bytes_per_s=10e9),
        sources=("our own round numbers",),
    ),
    "small_gpu": Hardware(
        "the same desktop, with 256 MiB of free memory on its GPU",
        {
            "CPU": DeviceSheet("a CPU", 1e12, 60e9, 1e-6, CPU_EFFICIENCY),
            "GPU": DeviceSheet("a GPU", 20e12, 300e9, 8e-6, GPU_EFFICIENCY, 256 * MIB),
        },
        default=("CPU", "GPU"),
        link=Link(latency_s=10e-6, bytes_per_s=10e9),
        sources=("our own round numbers",),
    ),
    "paper": Hardware(
        "the machine of HSDAG: Core i9-12900K, UHD 770, Data Center GPU Flex 170",
        {"CPU": I9_12900K, "GPU.0": UHD_770, "GPU.1": FLEX_170},
        default=("CPU", "GPU.1"),  # the paper, too, leaves out GPU.0 as always slower
        link=PCIE_4,
        links={("CPU", "GPU.0"): SHARED_MEMORY, ("GPU.0", "CPU"): SHARED_MEMORY},
        sources=(
            "HSDAG, arXiv 2405.14185, section 3 and table 2",
            "Intel ARK, Core i9-12900K",
            "Intel Data Center GPU Flex Series product brief",
        ),
    ),
    "laptop": Hardware(
        "a laptop like Core Ultra 7 155H: CPU, integrated GPU and NPU on one memory",
        {
            "CPU": DeviceSheet(
                "Intel Core Ultra 7 155H",
                flops_per_s=0.95e12,  # 6 P-cores at 3.8 GHz x 32 + 8 E-cores at 3.0 GHz x 16 / 2
                bytes_per_s=120e9,  # LPDDR5X-7467, 128 bits
                launch_s=1e-6,
                efficiency=CPU_EFFICIENCY,
            ),
            "GPU": DeviceSheet(
                "Intel Arc graphics, 8 Xe cores",
                flops_per_s=9.2e12,  # 128 execution units at 2.25 GHz x 32, f16
                bytes_per_s=120e9,
                launch_s=8e-6,
                efficiency=GPU_EFFICIENCY,
            ),
            "NPU": DeviceSheet(
                "Intel AI Boost",
                flops_per_s=5.7e12,  # 11.5 TOPS in int8, half of it in f16
                bytes_per_s=60e9,
                launch_s=3e-6,
                efficiency=NPU_EFFICIENCY,
                lacks=("Erf", "Gelu", "MVN", "Softmax", "Gather", "LSTMSequence", "NonZero"),
            ),
        },
        default=("CPU", "GPU", "NPU"),
        link=Link(latency_s=15e-6, bytes_per_s=30e9),
        sources=("Intel ARK, Core Ultra 7 155H; the missing ops are an assumption",),
    ),
    "server": Hardware(
        "a server like a two-socket Xeon with two Flex 170",
        {
            "CPU": DeviceSheet(
                "Intel Xeon Gold 6430",
                flops_per_s=4.3e12,  # 32 cores at 2.1 GHz x 64, AVX-512
                bytes_per_s=280e9,  # eight channels of DDR5-4400
                launch_s=2e-6,
                efficiency=CPU_EFFICIENCY,
            ),
            "GPU.0": FLEX_170,
            "GPU.1": FLEX_170,
        },
        default=("CPU", "GPU.0", "GPU.1"),
        link=PCIE_4,
        links={
            ("GPU.0", "GPU.1"): Link(latency_s=20e-6, bytes_per_s=12e9),  # through the host
            ("GPU.1", "GPU.0"): Link(latency_s=20e-6, bytes_per_s=12e9),
        },
        sources=("Intel ARK, Xeon Gold 6430", "Intel Data Center GPU Flex Series product brief"),
    ),
    "mcm": Hardware(
        f"a multi-chip module: up to {MCM_CHIPS} alike chips in a ring, which data passes one way",
        {f"NPU.{number}": MCM_CHIP for number in range(MCM_CHIPS)},
        default=tuple(f"NPU.{number}" for number in range(4)),
        link=Link(latency_s=1e-6, bytes_per_s=50e9),  # the slowest, for names of one's own
        links={
            (f"NPU.{one}", f"NPU.{other}"): Link(
                latency_s=50e-9 * ((other - one) % MCM_CHIPS), bytes_per_s=50e9
            )
            for one in range(MCM_CHIPS)
            for other in range(MCM_CHIPS)
            if one != other
        },
        sources=("our own round numbers; the form is that of arXiv 2112.04041",),
        constraints=("acyclic", "no_skip", "triangle", "memory"),
        schedule="pipelined",
    ),
}
"""Name -> machine."""

# Seconds of the singles in table 2 of HSDAG (arXiv 2405.14185), by model and device.
PAPER_SINGLES_S: Mapping[str, Mapping[str, float]] = {
    "inception_v3": {"CPU": 0.0128, "GPU.1": 0.0120},
    "resnet50": {"CPU": 0.0160, "GPU.1": 0.00781},
    "bert_base": {"CPU": 0.00638, "GPU.1": 0.00277},
}
