"""Settings shared by all searches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.envs.errors import DevicePlacementError, check_seed
from device_placement.envs.measuring.config import MeasureConfig


@dataclass(frozen=True)
class SearchConfig(MeasureConfig):
    """Options shared by all searches."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("model",),
        "comparison": ("rounds",),
        "grouping": ("coarsening", "max_groups", "input_shapes"),
        "simulator": ("hardware", "profile", "schedule", "constraints"),
        "measuring": ("inputs",),
    }

    model: str = "resnet50"
    """Bundled model (resnet50, inception_v3, bert_base, two_towers, diamond) or path of a file;
    with a + between them, several that run side by side; for the simulator also generated:SEED, a
    random problem."""
    executor: str = "auto"
    """auto (dataflow if devices can run side by side), hetero (OpenVINO's HETERO, which runs the
    subgraphs of a request in turn) or dataflow (regions run side by side, each when its inputs
    exist)."""
    devices: str = "auto"
    """Devices, comma-separated, each NAME or NAME:KEY=VALUE;KEY=VALUE; auto: every one found, or
    halves if that is only a CPU; halves: two CPU instances with half of the cores each. The first
    is the reference."""
    coarsening: str = "fusion"
    """How to group ops: fusion, colocation or none."""
    max_groups: int | None = None
    """Merge groups until at most this many remain."""
    evaluator: str = "openvino"
    """openvino (measure, here or with --on) or simulator (predict, also for absent devices)."""
    hardware: str = ""
    """Simulated machine: desktop (the default), small_gpu, laptop, server, paper or mcm (chips in a
    ring)."""
    profile: str | None = None
    """File by `device-placement profile`: the machine to simulate, in place of --hardware. If
    placements are measured, its costs are what an agent sees, and the prior of posterior_sampling.
    auto runs the model once on each device with OpenVINO's profiler, the default of agents."""
    schedule: str = ""
    """Simulated execution: sequential (the default), concurrent, dataflow, pipelined or max_load;
    a generated problem draws one of its own, mcm is pipelined."""
    constraints: str | None = None
    """What simulated placements must satisfy, comma-separated: acyclic, no_skip, triangle,
    neighbours, memory; by default nothing, or for mcm acyclic,no_skip,triangle,memory."""
    input_shapes: str = ""
    """Static shapes for a model with dynamic ones: NAME=1,3,224,224;NAME2=..."""
    inputs: str = ""
    """Values of the inputs: an .npz file with an array NAME for each, or with 0/NAME, 1/NAME, ...
    for several samples; default: invented."""
    budget: int = 300
    """Distinct placements to evaluate, including those on a single device."""
    patience: int | None = None
    """Stop after this many distinct placements without improvement; default: never."""
    seed: int = 0
    """Random seed."""
    rounds: int = 30
    """Samples of each placement in the final comparison; 0 skips it."""
    out: str = ""
    """Output folder, which must not exist yet; default: a new one under runs/."""
    resume: bool = False
    """Resume the run in --out with its settings; --budget and --patience may be raised."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)
        if self.rounds < 0:
            raise DevicePlacementError(f"Got rounds={self.rounds}; it must be 0 or more.")

    @property
    def models(self) -> tuple[str, ...]:
        """The models to place, each as `load_model` takes it."""
        return (self.model,)

    @property
    def input_files(self) -> tuple[str, ...]:
        """The file of input values of each model; empty where they are invented."""
        return (self.inputs,)
