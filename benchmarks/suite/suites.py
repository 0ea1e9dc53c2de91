"""Suites of problems on which placers are compared; data only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

MEASURED = "openvino"
SIMULATED = "simulator"
TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32"


@dataclass(frozen=True)
class Problem:
    """Model on a machine."""

    model: str
    """What `load_model` or `load_workload` takes, or ``layered:OPS`` for a random graph."""
    hardware: str = ""
    """For the simulator: a name of `HARDWARE`."""
    devices: str = "auto"
    """What `parse_devices` takes."""
    schedule: str = "sequential"
    """For the simulator: a name of `SCHEDULES`."""
    evaluator: str = SIMULATED
    """Evaluator: simulator, or openvino on this machine."""
    max_groups: int | None = None
    """Maximum number of groups."""
    reference: str = ""
    """Device to compare with; the first by default."""
    share: float | None = None
    """Allowed output error as a share of the worst single's; default: no limit."""
    inputs: str = ""
    """For openvino: an .npz file with the values of the inputs; invented by default."""
    chips: int = 0
    """For the simulator: number of chips of the hardware to place it on, by `on_chips`."""
    room: float = 1.5
    """Memory of a chip as a multiple of an even share of the model's weights."""
    constraints: str = ""
    """Of placements on chips: names of `CONSTRAINTS`; those of the hardware by default."""
    input_shapes: str = ""
    """Static shapes in place of dynamic ones, as in ``ids=1,128;mask=1,128``."""


@dataclass(frozen=True)
class Suite:
    """Problems that are reported together."""

    summary: str
    problems: Mapping[str, Problem]
    """Name -> problem."""
    budget: int
    """Distinct placements of each run, singles included."""


# The machine of HSDAG; singles take the times of its table 2.
PAPER: Mapping[str, Problem] = {
    "resnet50 on paper": Problem("resnet50", "paper"),
    "inception_v3 on paper": Problem("inception_v3", "paper"),
    "bert_base on paper": Problem("bert_base", "paper"),
}

# Problems on which the best single is 10 % or more above the best known placement.
HARD: Mapping[str, Problem] = {
    "two GPUs, concurrent": Problem("inception_v3", "server", "GPU.0,GPU.1", "concurrent"),
    "CPU and GPU, concurrent": Problem("inception_v3", "paper", "auto", "concurrent"),
    "four devices, max_load": Problem("bert_base", "server", "CPU,GPU.0,GPU.1,GPU.2", "max_load"),
    "small GPU": Problem("bert_base", "small_gpu"),
    "NPU without some ops": Problem("bert_base", "laptop", "CPU,NPU"),
    "CPU, iGPU, NPU, concurrent": Problem("inception_v3", "laptop", "auto", "concurrent"),
    "CPU, iGPU, NPU, pipelined": Problem("resnet50", "laptop", "auto", "pipelined"),
}

MODELS = ("resnet50", "inception_v3", "bert_base")

LOCAL: Mapping[str, Problem] = {
    f"{model} here": Problem(model, evaluator=MEASURED) for model in MODELS
}

# The first single is too inaccurate, the second one slow: no single is the answer.
LOCAL_ACCURACY: Mapping[str, Problem] = {
    f"{model} here, outputs near f32": Problem(
        model,
        devices=TWO_CPUS,
        evaluator=MEASURED,
        max_groups=24,
        reference="CPU_F32",
        share=0.5,
    )
    for model in MODELS
}

# Side by side on halves of the cores: a model with branches, one with towers, pairs of models.
LOCAL_PARALLEL: Mapping[str, Problem] = {
    f"{model} on halves": Problem(model, devices="halves", evaluator=MEASURED, max_groups=24)
    for model in ("inception_v3", "two_towers", "resnet50+inception_v3", "resnet50+two_towers")
}

# Half a decade apart: how placers and features cope with large graphs.
SCALE: Mapping[str, Problem] = {
    f"{ops} ops in layers": Problem(f"layered:{ops}", "desktop", schedule="concurrent")
    for ops in (100, 316, 1000, 3162, 10_000, 31_623, 100_000)
}

# In BERT all layers read the attention mask. So under `triangle` no layer may be further than one
# chip from where the mask is made, and the model would have to fit on two chips.
WITHOUT_DETOURS = {"bert_base": "acyclic,no_skip,memory"}
CHIPPED = ("bert_base", "inception_v3", "resnet50", "generated:4000000007", "generated:4000000011")


def _on_chips(model: str, chips: int) -> Problem:
    constraints = WITHOUT_DETOURS.get(model, "")
    return Problem(
        model,
        "mcm",
        schedule="pipelined",
        max_groups=240,
        chips=chips,
        # Skip connections tie groups together: with less memory nothing satisfies `triangle`.
        room=1.5 if constraints or chips == 4 else chips / 4,
        constraints=constraints,
    )


MCM: Mapping[str, Problem] = {
    f"{model} on {chips} chips": _on_chips(model, chips)
    for model in CHIPPED
    for chips in (4, 8, 16, 36)
}

QUICK: Mapping[str, Problem] = {
    "diamond": Problem("diamond", "desktop"),
    "inception_v3 in 12 groups": Problem("inception_v3", "paper", max_groups=12),
    "resnet50 in 12 groups, pipelined": Problem(
        "resnet50", "laptop", schedule="pipelined", max_groups=12
    ),
}

SUITES: Mapping[str, Suite] = {
    "paper": Suite("HSDAG's models on HSDAG's machine, simulated", PAPER, 2000),
    "hard": Suite("simulated problems on which no single is good", HARD, 2000),
    "local": Suite("the same models measured on this machine", LOCAL, 300),
    "local_accuracy": Suite(
        "measured here, outputs within half the error of all in bf16", LOCAL_ACCURACY, 300
    ),
    "local_parallel": Suite(
        "measured here on two halves of the cores, which run side by side", LOCAL_PARALLEL, 100
    ),
    "workloads": Suite("the files in --data: dnn-partitioning (.json), PipeDream (.txt)", {}, 2000),
    "scale": Suite("random layered graphs of 100 to 100,000 ops, simulated", SCALE, 100),
    "mcm": Suite("models and random graphs on chips in a ring, under constraints", MCM, 400),
    "quick": Suite("three small problems, for a first look", QUICK, 60),
}
"""Name -> suite."""
