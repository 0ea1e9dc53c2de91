"""Commands `devices` and `inspect`: print this machine's devices, a model's ops and groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from device_placement.agents.commands.config import DevicesConfig, InspectConfig
from device_placement.envs.cores import cpu_affinity
from device_placement.envs.devices import (
    Device,
    device_names,
    discover_devices,
    half_devices,
    is_cpu,
    make_core,
    parse_devices,
)
from device_placement.envs.graph.coarsening import COARSENING_METHODS, CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import ComputationGraph, read_graph
from device_placement.envs.graph.flops import unknown_ops
from device_placement.envs.graph.precision import layer_types_on, weight_types
from device_placement.envs.graph.shapes import is_bounded
from device_placement.envs.graph.tied_ops import read_values
from device_placement.envs.measuring.inputs import invented_note
from device_placement.envs.models.loading import load_model, parse_input_shapes
from device_placement.envs.models.normalisation import input_name, original_name
from device_placement.envs.rendering.text import align, computed_ops, count, flops_unit, main_types

MAX_TYPES = 12  # op types listed
MAX_LARGEST = 8  # groups listed
MAX_STATES = 4  # states listed
MAX_KINDS = 6  # types of ops or layers in a line


def show_devices(config: DevicesConfig) -> int:
    """Print the devices of this machine, what `auto` stands for, and OpenVINO's version."""
    names = device_names(make_core(["CPU"]))
    print("\n".join(align([("device", "full name"), *names.items()])))
    print(f"\nauto      {_listed(discover_devices())}")
    if len(cpu_affinity()) > 1:
        alone = all(is_cpu(name) for name in names)
        usual = " (for train, search and benchmark, also auto)" if alone else ""
        print(f"halves    {_listed(half_devices())}{usual}")
    print(f"OpenVINO  {version('openvino')}")
    return 0


def _listed(devices: Sequence[Device]) -> str:
    return ",".join(map(str, devices))


def inspect_model(config: InspectConfig) -> int:
    """Print a model's ops, its groups, and how many ops each device supports.

    Raises:
        DevicePlacementError: when the model, a device, a shape or the coarsening is wrong.
    """
    shapes = parse_input_shapes(config.input_shapes)
    devices = parse_devices(config.devices)
    model = load_model(config.model, input_shapes=shapes)
    core = make_core(devices)
    graph = read_graph(model, devices, core)
    coarse = coarsen(graph, config.coarsening, config.max_groups)
    _print_summary(model, graph)
    if note := invented_note(model):
        print(f"\nInputs\n  {note}")
    _print_types(graph)
    _print_precision(model, core, graph.devices)
    _print_unknown(model)
    _print_groups(graph, coarse, config.max_groups)
    _print_tied(model, coarse)
    _print_support(graph, [str(device) for device in devices])
    return 0


def _print_table(title: str, rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    print(f"\n{title}")
    for line in align(rows, right):
        print(f"  {line}")


def _print_summary(model: Any, graph: ComputationGraph) -> None:
    unit, scale = flops_unit(float(graph.flops.sum()))
    constants = int(graph.is_constant.sum())
    rows = [("model", graph.name), ("hash", graph.model_hash)]
    rows += [("input", _describe(port, input_name(port))) for port in model.inputs]
    rows += [("output", _describe(port, _output_name(port))) for port in model.outputs]
    rows += _state_rows(model)
    rows += [
        ("ops", f"{graph.num_ops} ({graph.num_ops - constants} without constants)"),
        ("edges", str(graph.num_edges)),
        (unit, f"{graph.flops.sum() / scale:.3f}"),
        ("weights", f"{graph.weight_bytes.sum() / 1e6:.3f} MB"),
    ]
    print("\n".join(align(rows)))


def _output_name(port: Any) -> str:
    names = sorted(port.get_names()) or [original_name(port.get_node())]
    return str(names[0])


def _describe(port: Any, name: str) -> str:
    return f"{name} {port.get_partial_shape()} {port.get_element_type().get_type_name()}"


def _state_rows(model: Any) -> list[tuple[str, str]]:
    states = read_values(model)
    rows = [("state", _describe(op.output(0), op.get_variable_id())) for op in states[:MAX_STATES]]
    left = len(states) - len(rows)
    return [*rows, ("", f"... {count(left, 'more state')}")] if left else rows


def _print_types(graph: ComputationGraph) -> None:
    unit, scale = flops_unit(float(graph.flops.sum()))
    types = np.array(graph.op_types)
    counts = Counter(graph.op_types).most_common()
    rows = [("type", "ops", unit)]
    for kind, number in counts[:MAX_TYPES]:
        rows.append((kind, str(number), f"{graph.flops[types == kind].sum() / scale:.3f}"))
    _print_table("Op types", rows, right=(1, 2))
    if len(counts) > MAX_TYPES:
        print(f"  ... {count(len(counts) - MAX_TYPES, 'more type')}")


def _print_precision(model: Any, core: Any, devices: Sequence[str]) -> None:
    """Print the types of the weights, and of the layers that each device runs."""
    sizes = weight_types(model)
    rows = [(kind, f"{size / 1e6:.3f}") for kind, size in sizes.items()]
    _print_table("Types of weights and other constants", [("type", "MB"), *rows], right=(1,))
    table = [("device", "computes in", "layers", "layer types")]
    for device in devices:
        found = layer_types_on(core, model, device)
        for precision, kinds in found.items():
            table.append((device, precision, str(sum(kinds.values())), _list(kinds)))
        if not found:
            table.append((device, "unknown", "", ""))
    _print_table("Precision of the layers that run", table, right=(2,))


def _list(kinds: Iterable[str]) -> str:
    """Return the first of several types, and how many are left out."""
    several = list(kinds)
    left = len(several) - MAX_KINDS
    return ", ".join(several[:MAX_KINDS]) + (f", {left} more" if left > 0 else "")


def _print_unknown(model: Any) -> None:
    """Print the op types whose FLOPs the simulator does not know, if there are any."""
    found = unknown_ops(model)
    if not found:
        return
    rows = [("type", "ops", "MB in and out")]
    rows += [(one.op_type, str(one.number), f"{one.size_bytes / 1e6:.3f}") for one in found]
    _print_table("FLOPs not known", rows, right=(1, 2))
    print(
        "  They count as 1 FLOP per output element, loops of unknown length as one trip. So\n"
        "  simulated times may be far off; measured ones, and those of a measured profile, are not."
    )


def _print_groups(graph: ComputationGraph, coarse: CoarseGraph, max_groups: int | None) -> None:
    rows = [("coarsening", "groups", "edges")]
    for method in COARSENING_METHODS:
        other = coarsen(graph, method)
        rows.append((method, str(other.num_groups), str(other.num_edges)))
    if max_groups is not None:
        chosen = f"{coarse.method}, at most {max_groups}"
        rows.append((chosen, str(coarse.num_groups), str(coarse.num_edges)))
    _print_table("Groups", rows, right=(1, 2))

    unit, scale = flops_unit(float(graph.flops.sum()))
    flops = np.bincount(coarse.op_group, graph.flops, minlength=coarse.num_groups)
    table = [("group", "ops", unit, "share", "main op types")]
    for group in np.argsort(-flops, kind="stable")[:MAX_LARGEST].tolist():
        ops = computed_ops(coarse, [group])
        share = f"{flops[group] / max(flops.sum(), 1):.1%}"
        kinds = ", ".join(main_types(coarse, ops)[:3])
        table.append((str(group), str(len(ops)), f"{flops[group] / scale:.3f}", share, kinds))
    _print_table(f"Largest groups of {coarse.method!r}", table, right=(0, 1, 2, 3))


def _print_tied(model: Any, coarse: CoarseGraph) -> None:
    """Print which ops must share a group, why, and in which group they are."""
    graph = coarse.graph
    if not graph.tied:
        return
    rows = [("because of", "group", "ops", "first", "last", "types")]
    for group, one in sorted((int(coarse.op_group[one.ops[0]]), one) for one in graph.tied):
        kinds = _list(dict.fromkeys(graph.op_types[op] for op in one.ops))
        ends = graph.op_names[one.ops[0]], graph.op_names[one.ops[-1]]
        rows.append((one.title, str(group), str(len(one.ops)), *ends, kinds))
    _print_table("Ops that must stay together", rows, right=(1, 2))
    if any(one.dynamic for one in graph.tied):
        print("  Bytes and FLOPs of dynamic shapes are upper bounds.")
        outputs = [output for op in model.get_ops() for output in op.outputs()]
        if unbounded := sum(not is_bounded(output) for output in outputs):
            print(f"  {count(unbounded, 'tensor')} without a bound: unknown sizes count as 1.")


def _print_support(graph: ComputationGraph, devices: Sequence[str]) -> None:
    types = np.array(graph.op_types)
    rows = [("device", "ops", "unsupported types")]
    for device, known in zip(devices, graph.supported.T, strict=True):
        missing = ", ".join(sorted(set(types[~known].tolist()))) or "none"
        rows.append((device, f"{known.sum()}/{graph.num_ops}", missing))
    _print_table("Support", rows, right=(1,))
