from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest
from openvino.preprocess import PrePostProcessor

from device_placement.envs import (
    DevicePlacementError,
    Placement,
    PlacementError,
    coarsen,
    load_model,
    make_core,
    parse_devices,
    read_graph,
    restore_affinities,
)
from device_placement.envs.executors.dataflow import DataflowModel
from device_placement.envs.executors.hetero import HeteroModel
from device_placement.envs.measuring.bench import BenchConfig, Entry, LocalBench
from device_placement.envs.measuring.timing import Timing
from problems import TWO_CPUS, chain, measured


def half(evaluator=None) -> Placement:
    evaluator = evaluator or measured()
    groups = evaluator.coarse.num_groups
    assignment = [int(group >= groups // 2) for group in range(groups)]
    return Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)


def test_groups_expand_to_every_op() -> None:
    coarse, devices = measured().coarse, measured().devices
    assignment = [group % 2 for group in range(coarse.num_groups)]
    placement = Placement.from_groups(coarse, devices, assignment)
    assert placement.op_names == coarse.graph.op_names
    assert placement.op_devices == tuple(assignment[group] for group in coarse.op_group)
    assert placement.to_groups(coarse) == tuple(assignment)
    assert placement.hetero_name == "HETERO:CPU,CPU_F32"


def test_affinities_are_joined_by_name_on_a_clone() -> None:
    model, placement = measured().model, half()
    applied = placement.apply(model)
    expected = dict(zip(placement.op_names, placement.op_devices, strict=True))
    for op in applied.get_ops():
        device = placement.devices[expected[op.get_friendly_name()]]
        assert op.get_rt_info()["affinity"].astype(str) == device.name
    assert not any("affinity" in op.get_rt_info() for op in model.get_ops())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ([0], r"shape \(1,\); the model has"),
        ([0, 2], "Group 1 is placed on device 2; devices are numbered 0 to 1"),
        ([0, -1], "Group 1 is placed on device -1"),
    ],
)
def test_what_does_not_fit_is_refused(assignment: list[int], message: str) -> None:
    coarse = measured().coarse
    if len(assignment) > 1:
        assignment = assignment + [0] * (coarse.num_groups - 2)
    with pytest.raises(PlacementError, match=message):
        Placement.from_groups(coarse, measured().devices, assignment)


def test_unsupported_ops_are_named() -> None:
    import dataclasses

    coarse = measured().coarse
    supported = np.ones_like(coarse.graph.supported)
    supported[:, 1] = False
    graph = dataclasses.replace(coarse.graph, supported=supported)
    limited = dataclasses.replace(
        coarse, graph=graph, supported=np.ones_like(coarse.supported) & [True, False]
    )
    with pytest.raises(PlacementError, match=r"CPU_F32 does not support group 0 \(.*action_masks"):
        Placement.from_groups(limited, measured().devices, [1] * coarse.num_groups)


def test_a_saved_placement_works_in_a_fresh_process(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    half().save(path)
    assert Placement.load(path) == half()
    code = f"""
from device_placement.envs import Placement, load_model, make_core
import numpy as np
placement = Placement.load({str(path)!r})
compiled = make_core(placement.devices).compile_model(
    placement.apply(load_model("diamond")), placement.hetero_name)
shape = compiled.inputs[0].get_shape()
print(float(np.abs(compiled(np.ones(shape, np.float32))[0]).sum()), compiled.get_property(
    "HETERO_NUMBER_OF_SUBMODELS"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    total, subgraphs = done.stdout.split()
    assert float(total) > 0
    assert int(subgraphs) == 2
    assert sorted(tmp_path.iterdir()) == [path]  # no draft is left


def test_a_placement_of_another_model_or_other_groups_is_refused() -> None:
    placement = half()
    with pytest.raises(PlacementError, match=r"made for the model 'diamond'.*not for 'resnet50'"):
        placement.apply(load_model("resnet50"))
    other = measured("resnet50").coarse
    with pytest.raises(PlacementError, match="made for the model 'diamond'"):
        placement.to_groups(other)
    coarse = coarsen(read_graph(load_model("diamond"), TWO_CPUS), "fusion", max_groups=1)
    with pytest.raises(PlacementError, match="several devices"):
        placement.to_groups(coarse)


def test_devices_can_be_renumbered_but_not_lost() -> None:
    placement = half()
    swapped = placement.with_devices(placement.devices[::-1])
    assert swapped.op_devices == tuple(1 - device for device in placement.op_devices)
    assert swapped.with_devices(placement.devices) == placement
    with pytest.raises(PlacementError, match="uses the device 'CPU_F32'; given are CPU"):
        placement.with_devices(placement.devices[:1])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "3",
        "{}",
        '{"format": "device-placement", "version": 2}',
        '{"format": "device-placement", "version": 1, "devices": ["CPU"], "model": "x"}',
        json.dumps(
            {
                "format": "device-placement",
                "version": 1,
                "model": "x",
                "model_hash": "y",
                "devices": ["CPU"],
                "ops": {"op0": "GPU"},
            }
        ),
    ],
)
def test_broken_placement_files_are_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(content)
    with pytest.raises(PlacementError, match=r"broken\.json"):
        Placement.load(path)


def test_a_missing_placement_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlacementError, match=r"none\.json"):
        Placement.load(tmp_path / "none.json")


def test_devices_given_as_strings_make_the_same_core() -> None:
    core = make_core(half().devices)
    assert {device.name for device in parse_devices(TWO_CPUS)} <= set(core.available_devices)


@pytest.fixture
def alternating(tmp_path: Path) -> tuple[ov.Model, Placement]:
    """A chain of six products, every other one of them on the second device."""
    model, devices = load_model(chain(tmp_path, length=6)), parse_devices(TWO_CPUS)
    coarse = coarsen(read_graph(model, devices))
    assignment = [group % 2 for group in range(coarse.num_groups)]
    return model, Placement.from_groups(coarse, devices, assignment)


def submodels(placement: Placement, model: object) -> int:
    compiled = make_core(placement.devices).compile_model(model, placement.hetero_name)
    return int(compiled.get_property("HETERO_NUMBER_OF_SUBMODELS"))


@pytest.mark.parametrize("compressed", [False, True])
def test_a_placed_model_that_is_saved_keeps_its_devices(
    alternating: tuple[ov.Model, Placement], tmp_path: Path, compressed: bool
) -> None:
    """Compressed, its constants have other names and further ops."""
    model, placement = alternating
    path = tmp_path / "placed.xml"
    ov.save_model(placement.apply(model), path, compress_to_fp16=compressed)
    core, plain = make_core(placement.devices), ov.Core()
    whole = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    for read in (
        core.read_model(path),
        core.read_model(*whole),
        core.read_model(model=str(path), config={"ENABLE_MMAP": False}),
        restore_affinities(plain.read_model(path)),
    ):
        assert submodels(placement, read) == 6
        assert Placement.from_model(read) == placement
    assert submodels(placement, path) == submodels(placement, str(path)) == 6
    assert Placement.from_model(plain.read_model(path)) == placement
    again = load_model(path)
    if compressed:
        with pytest.raises(PlacementError, match="has the same ops, so shapes or weights differ"):
            placement.apply(again)
    else:
        assert Placement.from_model(again) == placement
        placement.apply(again)


def test_a_core_reads_and_compiles_other_models_as_openvino_does(tmp_path: Path) -> None:
    core, path = make_core(parse_devices(TWO_CPUS)), chain(tmp_path, length=2)
    model = core.read_model(path)
    assert isinstance(core, ov.Core)
    assert not any("affinity" in op.get_rt_info() for op in model.get_ops())
    for compiled in (
        core.compile_model(path),
        core.compile_model(model=path, device_name="CPU", config={"PERFORMANCE_HINT": "LATENCY"}),
        core.compile_model(
            Path(path).read_text(), "CPU", weights=Path(path[:-3] + "bin").read_bytes()
        ),
    ):
        assert compiled.outputs[0].shape == ov.Shape([32, 64])
    with pytest.raises(PlacementError, match=r"'chain' has no placement; give one that"):
        Placement.from_model(model)


def test_ops_added_to_a_placed_model_join_their_neighbours(
    alternating: tuple[ov.Model, Placement], tmp_path: Path
) -> None:
    model, placement = alternating
    steps = PrePostProcessor(placement.apply(model))
    steps.input().tensor().set_element_type(ov.Type.u8)
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(1.0).scale(2.0)
    steps.output().tensor().set_element_type(ov.Type.f16)
    built = steps.build()
    with pytest.raises(RuntimeError, match="were not assigned to any device"):
        submodels(placement, built)
    assert restore_affinities(built) is built
    assert submodels(placement, built) == 6
    path = tmp_path / "processed.xml"
    ov.save_model(built, path, compress_to_fp16=False)
    assert submodels(placement, path) == 6
    device = {op.get_friendly_name(): op.get_rt_info()["affinity"] for op in built.get_ops()}
    for op in built.get_ops():
        own = device[op.get_friendly_name()].astype(str)
        readers = {
            device[port.get_node().get_friendly_name()].astype(str)
            for output in op.outputs()
            for port in output.get_target_inputs()
        }
        if op.get_type_name() in ("Parameter", "Constant", "Convert", "Subtract", "Divide"):
            assert readers == {own}


def test_pre_processing_before_the_search_belongs_to_the_placement(tmp_path: Path) -> None:
    path = chain(tmp_path, length=2)
    steps = PrePostProcessor(ov.Core().read_model(path))
    steps.input().tensor().set_element_type(ov.Type.u8)
    processed, devices = load_model(steps.build()), parse_devices(TWO_CPUS)
    coarse = coarsen(read_graph(processed, devices))
    single = Placement.from_groups(coarse, devices, [1] * coarse.num_groups)
    assert submodels(single, single.apply(processed)) == 1
    plain = load_model(path)
    coarse = coarsen(read_graph(plain, devices))
    other = Placement.from_groups(coarse, devices, [1] * coarse.num_groups)
    message = "also has 1 Convert. If these are pre-processing, apply .* restore_affinities"
    with pytest.raises(PlacementError, match=message):
        other.apply(processed)
    with pytest.raises(PlacementError, match="Give the model it was made for, with the same input"):
        single.apply(plain)


def test_openvino_chooses_freely_for_a_model_that_was_placed_before(
    alternating: tuple[ov.Model, Placement],
) -> None:
    model, placement = alternating
    placed, core = placement.apply(model), make_core(placement.devices)
    config = BenchConfig(placement.devices, placement.op_names, Timing())
    bench = LocalBench(placed, core, config)
    (found,) = bench.compare([Entry(placement.hetero_name)], 1, 0, 1.0)
    (free,) = LocalBench(model, core, config).compare([Entry(placement.hetero_name)], 1, 0, 1.0)
    assert found.num_subgraphs == free.num_subgraphs < 6


def test_a_model_without_devices_is_not_changed() -> None:
    x = ops.parameter([2], np.float32)
    model = ov.Model([ops.relu(x)], [x])
    restore_affinities(model)
    assert not any("affinity" in op.get_rt_info() for op in model.get_ops())


def dataflow_file(path: Path, **changes: object) -> Path:
    """A placement file as it is written now, with changes; None leaves a key out."""
    dataclasses.replace(half(), executor="dataflow").save(path)
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: one for key, one in content.items() if one is not None}))
    return path


def test_a_file_keeps_groups_and_executor(tmp_path: Path) -> None:
    placement = dataclasses.replace(half(), executor="dataflow")
    assert placement.op_groups == tuple(measured().coarse.op_group.tolist())
    loaded = Placement.load(dataflow_file(tmp_path / "placement.json"))
    assert loaded == placement
    assert Placement.from_model(placement.apply(measured().model)) == placement
    assert placement.with_devices(placement.devices[::-1]).op_groups == placement.op_groups
    coarse = loaded.coarsen(measured().coarse.graph)
    assert (coarse.op_group == measured().coarse.op_group).all()
    assert coarse.num_groups == measured().coarse.num_groups
    assert loaded.to_groups(coarse) == placement.to_groups(measured().coarse)


def test_files_of_earlier_versions_have_neither_groups_nor_executor(tmp_path: Path) -> None:
    path = dataflow_file(tmp_path / "placement.json", groups=None, executor=None)
    loaded = Placement.load(path)
    assert (loaded.op_groups, loaded.executor) == ((), "hetero")
    graph = measured().coarse.graph
    coarse = loaded.coarsen(graph)
    assert coarse.num_groups == coarsen(graph, "none").num_groups
    assert len(loaded.to_groups(coarse)) == coarse.num_groups
    x = np.ones((1, 64), np.float32)
    with loaded.compile(measured().model, "dataflow") as compiled:  # each op is a group
        outputs = compiled.infer([x])
    with loaded.compile(measured().model) as hetero:
        assert isinstance(hetero, HeteroModel)
        np.testing.assert_allclose(outputs[0], hetero.infer([x])[0], rtol=0.05, atol=0.05)


def grouped(*groups: object) -> dict[str, object]:
    """The groups of the ops, as a file holds them."""
    return dict(zip(half().op_names, groups, strict=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": [0] * 9}, "TypeError: groups is no object"),
        ({"first group": -1}, "got -1 for a count of 0 to"),
        ({"first group": "0"}, "got '0' for a count"),
        ({"first group": 0.5}, "got 0.5 for a count"),
        ({"first group": True}, "got True for a count"),
        ({"first group": 2**60}, "for a count"),
        ({"groups": 5}, "TypeError"),
        ({"executor": "auto"}, "Unknown executor 'auto'; allowed: hetero, dataflow"),
        ({"executor": "dataflows"}, "Did you mean 'dataflow'"),
        ({"executor": 3}, "Unknown executor 3"),
        ({"executor": ["hetero"]}, "Unknown executor"),
        ({"devices": ["CPU", "CPU_F32:CORES=x"]}, "CORES=x"),
        ({"devices": ["CPU:CORES=0", "CPU_F32"]}, "only a further CPU instance"),
    ],
)
def test_wrong_groups_and_executors_in_files_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    assert len(half().op_names) == 9
    if "first group" in changes:
        changes = {"groups": grouped(changes["first group"], *[0] * 8)}
    path = dataflow_file(tmp_path / "placement.json", **changes)
    with pytest.raises(PlacementError, match=message) as info:
        Placement.load(path)
    assert "\n" not in str(info.value)
    assert "placement.json" in str(info.value)


def test_groups_that_do_not_fit_are_refused_when_they_are_used(tmp_path: Path) -> None:
    graph, model = measured().coarse.graph, measured().model
    assert half().op_groups == (0, 0, 0, 1, 1, 2, 2, 3, 3)
    path = dataflow_file(tmp_path / "cyclic.json", groups=grouped(0, 0, 0, 1, 1, 2, 2, 0, 0))
    cyclic = Placement.load(path)
    with pytest.raises(PlacementError, match="not numbered in the order in which they run") as info:
        cyclic.coarsen(graph)
    assert "\n" not in str(info.value)
    with pytest.raises(PlacementError, match=r"have a cycle between them.*`coarsen`\.$") as info:
        dataclasses.replace(cyclic, op_devices=(0,) * 9).compile(model)
    assert "\n" not in str(info.value)
    path = dataflow_file(
        tmp_path / "backwards.json",
        groups=grouped(3, 3, 3, 2, 2, 1, 1, 0, 0),
    )
    with pytest.raises(PlacementError, match="not numbered in the order in which they run"):
        Placement.load(path).coarsen(graph)
    one_group = Placement.load(dataflow_file(tmp_path / "one.json", groups=grouped(*[0] * 9)))
    with pytest.raises(PlacementError, match="on several devices"):
        one_group.compile(model)
    with pytest.raises(PlacementError, match="several devices"):
        one_group.to_groups(one_group.coarsen(graph))
    with pytest.raises(PlacementError, match="made for the model 'diamond'"):
        one_group.coarsen(measured("resnet50").coarse.graph)


def test_a_placement_compiles_for_its_own_executor_or_another() -> None:
    model, placement = measured().model, half()
    x = np.ones((1, 64), np.float32)
    kinds: list[tuple[str, str, type]] = [
        ("hetero", "", HeteroModel),
        ("dataflow", "", DataflowModel),
        ("hetero", "dataflow", DataflowModel),
        ("dataflow", "hetero", HeteroModel),
        ("dataflow", "auto", HeteroModel),  # both are the same processor
    ]
    for own, asked, kind in kinds:
        placed = dataclasses.replace(placement, executor=own)
        with placed.compile(model, asked, measured().core, requests=2) as compiled:
            assert isinstance(compiled, kind)
            flights = [compiled.start_async([x]), compiled.start_async({0: x})]
            assert [flight.wait()[0].shape for flight in flights] == [(1, 64)] * 2
    with pytest.raises(DevicePlacementError, match="Unknown executor 'fast'"):
        placement.compile(model, "fast")
    with pytest.raises(PlacementError, match="not for 'resnet50'"):
        placement.compile(load_model("resnet50"))


def test_a_saved_placement_runs_as_dataflow_in_a_fresh_process(tmp_path: Path) -> None:
    path = dataflow_file(tmp_path / "placement.json")
    code = f"""
import numpy as np
from device_placement.envs import Placement, load_model
with Placement.load({str(path)!r}).compile(load_model("diamond")) as compiled:
    outputs = compiled.infer([np.ones((1, 64), np.float32)])
print(type(compiled).__name__, compiled.num_regions, float(np.abs(outputs[0]).sum()) > 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DataflowModel", "4", "True"]
