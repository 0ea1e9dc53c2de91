"""Files of the result: the model, how to run it from Python and C++, and the check that they do."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from device_placement.agents.optimizing.confirm import Confirmed
from device_placement.envs.affinities import AFFINITY
from device_placement.envs.devices import EXTENSIONS_VARIABLE, Device, is_cpu
from device_placement.envs.errors import DevicePlacementError, ModelError
from device_placement.envs.executors import DATAFLOW, HETERO, dataflow
from device_placement.envs.executors.regions import plan_regions
from device_placement.envs.files import replaced
from device_placement.envs.measuring.config import HINTS
from device_placement.envs.measuring.inputs import Samples
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.measuring.program import build_program, is_stateful
from device_placement.envs.measuring.target import Target, run_python
from device_placement.envs.models.loading import model_hash, save_model
from device_placement.envs.placement import Claim, Placement

TEMPLATES = ("run.py", "run.cpp", "CMakeLists.txt")
SPARE_BYTES = 16 << 20  # in addition to the model, that the folder needs
CHECK_S = 600.0  # limit of the check


@dataclass(frozen=True)
class Check:
    """What the written ``run.py`` did in a process of its own."""

    median_s: float
    output_error: float | None  # None: outputs can't be compared
    allowed_error: float | None  # None: as above

    @property
    def outputs_hold(self) -> bool:
        """Whether the outputs are those of the model as it was, as far as that can be judged."""
        if self.output_error is None or self.allowed_error is None:
            return True
        return self.output_error <= self.allowed_error


def check_room(folder: Path, evaluator: OpenVINOEvaluator) -> None:
    """Check that the disk has room for the result, before anything is measured.

    Raises:
        DevicePlacementError: when it does not.
    """
    needed = int(evaluator.coarse.graph.weight_bytes.sum()) + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DevicePlacementError(
            f"Got {free >> 20} MiB of free space for {str(folder)!r}; the result needs about "
            f"{needed >> 20} MiB. Free space there, or give another --out."
        )


def placement_of(evaluator: OpenVINOEvaluator, found: Confirmed, claim: Claim | None) -> Placement:
    """Return the winner as a placement; it must be one."""
    how = DATAFLOW if found.how == DATAFLOW else HETERO
    made = Placement.from_groups(evaluator.coarse, evaluator.devices, found.assignment, how)
    return dataclasses.replace(made, claim=claim)


def deploy(
    folder: Path,
    evaluator: OpenVINOEvaluator,
    found: Confirmed,
    claim: Claim | None,
    allowed_error: float | None,
) -> None:
    """Write the model, its affinities and regions, its inputs, and the programs that run it.

    Args:
        folder: to write to; files of an earlier result in it are replaced.
        evaluator: of the problem.
        found: the winner.
        claim: of the placement.
        allowed_error: of the outputs; None: they can't be compared.

    Raises:
        OSError: when the disk is full.
    """
    _remove_earlier(folder)
    model = evaluator.model
    if found.uses_file:
        model = evaluator.core.read_model(evaluator.file)
    elif found.assignment:
        placement = placement_of(evaluator, found, claim)
        placement.save(folder / "placement.json")
        model = placement.apply(evaluator.model)
        _write_json(folder / "affinities.json", affinities_of(model))
    _save_whole(evaluator, model, folder / "model.xml", normalised=not found.uses_file)
    comparable = allowed_error is not None and _write_tensors(folder, evaluator)
    plan = _plan_of(evaluator, found)
    plan |= {"allowed_error": allowed_error if comparable else None}
    _write_json(folder / "run.json", plan)
    if found.how == DATAFLOW:
        shutil.copyfile(dataflow.__file__, folder / "dataflow.py")
    values = _values_of(evaluator, found)
    for name in TEMPLATES:
        text = files(__package__).joinpath("templates", f"{name}.in").read_text("utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        with replaced(folder / name) as draft:
            draft.write_text(text, encoding="utf-8")


def check(
    folder: Path, allowed_error: float | None, runs: int, target: Target | None = None
) -> Check:
    """Run the written ``run.py`` in a process of its own, and return what it found.

    Args:
        folder: of the result.
        allowed_error: of the outputs; None: they can't be compared.
        runs: to time.
        target: where to run it; this machine if None.

    Raises:
        DevicePlacementError: when it fails.
    """
    command = ["-I", "run.py", "--json", "--runs", str(runs)]
    run = target.run_program if target else run_python
    done = run(command, str(folder), CHECK_S)
    reason = f"it took more than {CHECK_S:g} s."
    status, output, errors = done or (0, "", "")
    if done:
        reason = (errors.strip().splitlines() or ["no message"])[-1] if status else ""
    if reason:
        raise DevicePlacementError(
            f"{str(folder / 'run.py')!r} fails: {reason} Everything measured is kept; remove the "
            "cause, then continue with --resume."
        )
    said = json.loads(output.strip().splitlines()[-1])
    return Check(said["median_ms"] / 1e3, said["output_error"], allowed_error)


def affinities_of(model: Any) -> dict[str, str]:
    """Return the device of every op of a placed model, as OpenVINO's samples read them."""
    return {
        op.get_friendly_name(): str(op.get_rt_info()[AFFINITY].astype(str))
        for op in model.get_ordered_ops()
    }


def _remove_earlier(folder: Path) -> None:
    """Remove what another kind of result would have left."""
    for name in ("placement.json", "affinities.json", "dataflow.py", "timeline.png"):
        (folder / name).unlink(missing_ok=True)
    for name in ("inputs", "expected"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _save_whole(evaluator: OpenVINOEvaluator, model: Any, path: Path, normalised: bool) -> None:
    """Write a model, and read it again, as a full disk would leave a part of it without a word."""
    try:
        save_model(model, path)
        read = evaluator.core.read_model(path)
        # Reading may order the ops of a model that is not normalised otherwise.
        same = not normalised or model_hash(read) == evaluator.coarse.graph.model_hash
        reason = "what is read is not what was written"
    except (ModelError, RuntimeError) as error:
        same, reason = False, str(error).strip().splitlines()[-1]
    if not same:
        raise OSError(errno.ENOSPC, f"The model can't be written whole to {str(path)!r} ({reason})")


def _write_tensors(folder: Path, evaluator: OpenVINOEvaluator) -> bool:
    """Write the inputs, and the outputs of the model as it is; return whether that could be done.

    It can't with texts, and types that NumPy lacks.
    """
    tensors = evaluator.samples.tensors(evaluator.model)[0]
    arrays = [_array_of(tensor) for tensor in tensors]
    outputs = _expected(evaluator)
    if any(one is None or one.dtype.kind not in "biuf" for one in [*arrays, *outputs]):
        return False
    for name, several in (("inputs", arrays), ("expected", outputs)):
        (folder / name).mkdir()
        for number, array in enumerate(several):
            with replaced(folder / name / f"{number}.bin") as draft:
                draft.write_bytes(np.ascontiguousarray(array).tobytes())
    return True


def _array_of(tensor: Any) -> Any:
    """Return a tensor's values; None if NumPy lacks their type."""
    name = tensor.get_element_type().to_string()
    plain = name in ("boolean", *(f"{kind}{bits}" for kind in "iuf" for bits in (8, 16, 32, 64)))
    return np.array(tensor.data) if plain else None


def _expected(evaluator: OpenVINOEvaluator) -> list[Any]:
    """Return the outputs of the model as it is, on the device that others are compared with."""
    device = evaluator.devices[evaluator.reference].name
    return evaluator.call_on_file(outputs_as_it_is, device, evaluator.samples)


def outputs_as_it_is(core: Any, model: Any, file: str, device: str, samples: Samples) -> list[Any]:
    """Return the outputs of a model's file on a device, or those of the model if there is none."""
    read = core.read_model(file) if file else model
    # In a thread of its own, as compiling may change how the calling one rounds.
    with ThreadPoolExecutor(1) as thread:
        program = thread.submit(
            build_program, core, read, device, samples=samples, like=model
        ).result()
        outputs: list[Any] = thread.submit(getattr, program, "outputs").result()
    return outputs[: len(model.outputs)]  # of the first sample


def _plan_of(evaluator: OpenVINOEvaluator, found: Confirmed) -> dict[str, Any]:
    """Return what ``run.py`` needs to know, as plain data."""
    config = evaluator.config
    plan: dict[str, Any] = {
        "how": found.how,
        "device_name": found.device_name,
        "devices": [
            {
                "name": device.name,
                "further_cpu": _is_further(device.name),
                "properties": device.openvino_properties,
                "cores": list(device.cores),
            }
            for device in _used_devices(evaluator, found)
        ],
        "requests": 1 if config.objective == "latency" else config.requests,
        "stateful": is_stateful(evaluator.model),
        "extensions": list(filter(None, os.environ.get(EXTENSIONS_VARIABLE, "").split(os.pathsep))),
        "stated_ms": 1e3 * found.evaluations[found.winner].time_s,
        "regions": [],
    }
    if found.how == DATAFLOW:
        placement = placement_of(evaluator, found, None)
        names = [placement.devices[number].name for number in placement.op_devices]
        regions = plan_regions(
            evaluator.model,
            dict(zip(placement.op_names, names, strict=True)),
            dict(zip(placement.op_names, placement.op_groups, strict=True)),
        )
        plan["regions"] = [{"device": one.device, "ops": list(one.op_names)} for one in regions]
        if config.objective != "latency" and not config.requests:
            plan["requests"] = 1 + len({one.device for one in regions})
    return plan


def _is_further(name: str) -> bool:
    """Return whether a device is a further CPU instance, which OpenVINO does not list by itself."""
    return is_cpu(name) and name != "CPU"


def _used_devices(evaluator: OpenVINOEvaluator, found: Confirmed) -> list[Device]:
    """Return the devices that the winner names, in their order."""
    if found.assignment:
        return list(evaluator.devices)
    named = found.device_name.partition(":")
    names = (named[2] or named[0]).split(",")
    return [device for device in evaluator.devices if device.name in names]


def _values_of(evaluator: OpenVINOEvaluator, found: Confirmed) -> Mapping[str, str]:
    """Return what the C++ program is filled with."""
    device = found.plain_device
    affinities = bool(found.assignment) and device == found.hetero_name
    lines = []
    for one in evaluator.devices:
        if one.name not in device.replace(":", ",").split(","):
            continue
        if _is_further(one.name):
            lines.append(
                '  core.register_plugin(core.get_versions("CPU").begin()->second.description, '
                f'"{one.name}");\n'
            )
        if settings := one.openvino_properties:
            pairs = ", ".join(f'{{"{key}", "{value}"}}' for key, value in settings.items())
            lines.append(f'  core.set_property("{one.name}", ov::AnyMap{{{pairs}}});\n')
    about = "The placement in affinities.json, by HETERO."
    if not affinities:
        about = f"OpenVINO's own way, {device}."
        if found.how == DATAFLOW:
            about += " The placement needs the executor in dataflow.py: by HETERO it is slower."
    return {
        "ABOUT": about,
        "USES_AFFINITIES": "true" if affinities else "false",
        "DEVICE": device,
        "HINT": HINTS[evaluator.config.objective],
        "SET_UP": "".join(lines),
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replaced(path) as draft:
        draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
