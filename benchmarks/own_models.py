"""Check your own model files: loading, random splits, and the time next to the file as it is.

Random placements of each model must run and return what the file returns, compiled as it is. The
loaded model is timed in turns with its file; as two compiles of the same model differ by some
percent, both are compiled several times. Run it with::

    python -m device_placement.benchmarks.own_models MODEL.xml OTHER.onnx
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.benchmarks.study import (
    TWO_PRECISIONS,
    LiveTable,
    judge,
    progress,
    random_placements,
    run,
    shapes_of,
)
from device_placement.envs.devices import Device, make_core, parse_devices
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.factory import make_evaluator
from device_placement.envs.graph.precision import layer_types_on
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import (
    Contender,
    compare,
    paired_ratio,
    placed,
)
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.program import build_program
from device_placement.envs.measuring.timing import MIN_SAMPLES, median_interval
from device_placement.envs.measuring.verification import output_difference
from device_placement.envs.models.loading import model_file
from device_placement.envs.placement import Placement

HINT = "INFERENCE_PRECISION_HINT"


@dataclass(frozen=True)
class OwnModelsConfig:
    """Options of the study."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("models",)}

    models: tuple[str, ...]
    """Paths of model files."""
    devices: str = TWO_PRECISIONS
    """Devices, comma-separated, as for the commands; times are those on the first one."""
    input_shapes: str = ""
    """Static shapes of dynamic inputs, NAME=1,128;NAME=1,128; a model takes those of its inputs."""
    inputs: str = ""
    """An .npz file with the values of the inputs; invented without it."""
    splits: int = 5
    """Random placements per model."""
    max_error: float = 0.02
    """Largest relative difference from the file's outputs, in f32 where a device has it; layers in
    int8 may round a value up or down."""
    compiles: int = 30
    """How often file and loaded model are compiled to be timed, at most: fewer when the interval
    shows that the model holds or does not; 0: times are not taken."""
    rounds: int = 30
    """Samples of each after each compile."""
    max_slowdown: float = 0.03
    """How much slower than its file a loaded model may be."""
    seed: int = 0
    """Seed of the random placements."""


@dataclass
class Found:
    """Results of one model."""

    model: str
    error: str = ""  # why it does not load
    groups: int = 0
    gflops: float = 0.0
    weights_mb: float = 0.0
    states: int = 0
    dynamic_ops: int = 0
    precisions: str = ""  # of the layers on the first device, with the number of layers
    valid: int = 0  # random placements that ran and returned the file's outputs
    output_error: float = math.nan  # the largest
    file_ms: float = math.nan
    loaded: list[float] = field(default_factory=list)  # (compiles,) median time over the file's
    single: list[float] = field(default_factory=list)  # the same, of the single by HETERO


def check(path: str, config: OwnModelsConfig) -> Found:
    """Load a model, run random placements of it, time it beside its file; return the results."""
    found = Found(path.replace("\\", "/").rpartition("/")[2])
    devices = parse_devices(config.devices)
    try:
        if not model_file(path):
            raise DevicePlacementError(
                f"Got the bundled model {path!r}; give paths of model files."
            )
        with _evaluator(path, _exact(devices), config) as evaluator:
            _describe(evaluator, found)
            _run_splits(evaluator, found, config)
        with _evaluator(path, devices, config) as evaluator:
            kinds = layer_types_on(evaluator.core, evaluator.model, devices[0].name)
            found.precisions = ", ".join(f"{sum(kinds[one].values())} {one}" for one in kinds)
            _time(evaluator, found, config)
    except (DevicePlacementError, RuntimeError) as error:
        found.error = str(error)
    return found


@contextlib.contextmanager
def _evaluator(
    path: str, devices: tuple[Device, ...], config: OwnModelsConfig
) -> Iterator[OpenVINOEvaluator]:
    evaluator = make_evaluator(
        path,
        devices,
        input_shapes=shapes_of(path, config.input_shapes),
        inputs=config.inputs or None,
        store=None,
        timing="plain",
        warmup=0,
        max_samples=1,
    )
    with contextlib.closing(evaluator):
        yield evaluator


def _exact(devices: Sequence[Device]) -> tuple[Device, ...]:
    """Return devices that compute in f32 where they can, so that outputs can be compared."""
    core = make_core(devices)
    return tuple(
        replace(one, properties=(*one.properties, (HINT, "f32")))
        if HINT in core.get_property(one.name, "SUPPORTED_PROPERTIES")
        and "FP32" in core.get_property(one.name, "OPTIMIZATION_CAPABILITIES")
        and HINT not in dict(one.properties)
        else one
        for one in devices
    )


def _describe(evaluator: OpenVINOEvaluator, found: Found) -> None:
    graph = evaluator.coarse.graph
    found.groups = evaluator.coarse.num_groups
    found.gflops = float(graph.flops.sum()) / 1e9
    found.weights_mb = float(graph.weight_bytes.sum()) / 1e6
    found.states = len(evaluator.model.get_variables())
    found.dynamic_ops = sum(len(one.ops) for one in graph.tied if one.dynamic)


def _run_splits(evaluator: OpenVINOEvaluator, found: Found, config: OwnModelsConfig) -> None:
    """Run random placements, measured in a process of their own and here, and compare outputs."""
    file = evaluator.core.read_model(evaluator.file)
    expected = _outputs(evaluator, file, evaluator.devices[0].name)
    errors = []
    for assignment in random_placements(evaluator.coarse, config.splits, config.seed):
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
        evaluation = evaluator.evaluate(assignment)
        if not evaluation.valid:
            progress(f"{found.model}: {evaluation.error}")
            continue
        outputs = _outputs(evaluator, placement.apply(evaluator.model), placement.hetero_name)
        errors.append(output_difference(outputs, expected)[0])
    found.valid = sum(error <= config.max_error for error in errors)
    found.output_error = float(np.max(errors, initial=0.0))


def _outputs(evaluator: OpenVINOEvaluator, model: Any, device_name: str) -> list[Any]:
    return build_program(
        evaluator.core, model, device_name, samples=evaluator.samples, like=evaluator.model
    ).outputs


def _time(evaluator: OpenVINOEvaluator, found: Found, config: OwnModelsConfig) -> None:
    """Compile file, loaded model and single until it is clear whether one of these is slower."""
    device = evaluator.devices[0].name
    entries = [
        Contender("file", Entry(device, path=evaluator.file)),
        Contender("loaded", Entry(device)),
        placed(evaluator, "single", [0] * evaluator.coarse.num_groups),
    ]
    times = []
    for _ in range(config.compiles):
        entries.reverse()
        measured = compare(evaluator, entries, config.rounds)
        for name in ("loaded", "single"):
            ratio, _ = paired_ratio(measured[name], measured["file"])
            getattr(found, name).append(ratio)
        if failed := [one.error for one in measured.values() if one.error]:
            raise DevicePlacementError(failed[0])
        times.append(1e3 * measured["file"].time_s)
        limit = 1 + config.max_slowdown
        if is_clear(found.loaded, limit) and is_clear(found.single, limit):
            break
    found.file_ms = float(np.median(times)) if times else math.nan


def is_clear(ratios: Sequence[float], limit: float) -> bool:
    """Return whether the median of the ratios is below or above a limit, with 95 % confidence."""
    low, high = median_interval(ratios)
    return len(ratios) >= MIN_SAMPLES and not low <= limit <= high


def holds(found: Found, config: OwnModelsConfig) -> bool:
    """Return whether a model loads, its splits are right, and neither it nor its single is slow."""
    if found.error or found.valid < config.splits:
        return False
    ratios = [float(np.median(one)) for one in (found.loaded, found.single) if one]
    return all(ratio <= 1 + config.max_slowdown for ratio in ratios)


def _with_interval(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    low, high = median_interval(ratios)
    return f"{np.median(ratios):.3f} ({low:.3f} - {high:.3f})"


def main(config: OwnModelsConfig) -> int:
    """Print one line per model, and how many hold; return 1 when one does not."""
    table = LiveTable(
        *("model:<24", "groups:>7", "GFLOPs:>10.3g", "weights MB:>12.3g", "states:>8"),
        *("dynamic ops:>13", "splits:>8", "error:>10.1e", "file ms:>10.4f"),
        *("loaded / file:>24", "single / file:>24", "  layers:<1"),
    )
    held = 0
    for path in config.models:
        found = check(path, config)
        held += holds(found, config)
        if found.error:
            print(f"{found.model}  FAILS: {found.error}", flush=True)
            continue
        table.add(
            *(found.model, found.groups, found.gflops, found.weights_mb, found.states),
            *(found.dynamic_ops, f"{found.valid}/{config.splits}", found.output_error),
            *(found.file_ms, _with_interval(found.loaded), _with_interval(found.single)),
            f"  {found.precisions}",
        )
    total = len(config.models)
    target = f"all {total}: right splits"
    if config.compiles:
        target += f", at most {config.max_slowdown:.0%} slower than the file"
    print(f"\n{held} of {total} models hold, {judge(held == total, target)}")
    return 0 if held == total else 1


if __name__ == "__main__":
    run(main, OwnModelsConfig, __doc__)
