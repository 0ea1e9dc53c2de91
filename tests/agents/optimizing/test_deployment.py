"""The files of a result: they run by themselves, from Python and C++, and are whole or refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest

from device_placement.agents.optimizing import deployment
from device_placement.agents.optimizing.confirm import OPENVINO
from device_placement.agents.optimizing.deployment import check, check_room, deploy
from device_placement.envs import (
    DevicePlacementError,
    Placement,
    make_core,
    make_evaluator,
    restore_affinities,
)
from device_placement.envs.models.loading import model_hash
from optimized import MIXED, deployed, won
from others import FILES
from platforms import WINDOWS
from problems import QUICK, TWO_CPUS, measured


@pytest.fixture(scope="module")
def by_hetero(folder: Path) -> Path:
    return deployed(folder / "hetero", measured(), won("hetero"))


def test_affinities_have_every_op_of_the_saved_model_by_its_name(by_hetero: Path) -> None:
    affinities = json.loads((by_hetero / "affinities.json").read_text())
    model = ov.Core().read_model(by_hetero / "model.xml")
    assert {op.get_friendly_name() for op in model.get_ops()} == set(affinities)
    assert set(affinities.values()) == {"CPU", "CPU_F32"}
    for op in model.get_ops():  # constants lie where they are read
        if op.get_type_name() == "Constant":
            (target,) = op.output(0).get_target_inputs()
            reader = target.get_node().get_friendly_name()
            assert affinities[op.get_friendly_name()] == affinities[reader]
    placement = Placement.load(by_hetero / "placement.json")
    assert placement.to_groups(measured().coarse) == MIXED
    assert Placement.from_model(model).op_devices == placement.op_devices
    assert model_hash(model) == placement.model_hash


def test_what_openvino_reads_is_what_was_placed(by_hetero: Path) -> None:
    """The JSON by hand, as in C++, and our own keys in the model: the same subgraphs."""
    affinities = json.loads((by_hetero / "affinities.json").read_text())
    core = make_core(measured().devices)
    model = ov.Core().read_model(by_hetero / "model.xml")
    for op in model.get_ops():
        op.get_rt_info()["affinity"] = affinities[op.get_friendly_name()]
    restored = restore_affinities(ov.Core().read_model(by_hetero / "model.xml"))
    numbers = [
        core.compile_model(one, "HETERO:CPU,CPU_F32").get_property("HETERO_NUMBER_OF_SUBMODELS")
        for one in (model, restored)
    ]
    assert numbers[0] == numbers[1] > 1


@pytest.mark.parametrize("how", ["hetero", "dataflow", OPENVINO])
def test_the_program_runs_in_a_process_of_its_own(how: str, tmp_path: Path) -> None:
    own = how == OPENVINO
    found = won(how, () if own else MIXED, "AUTO:CPU" if own else "")
    folder = deployed(tmp_path / how, measured(), found)
    assert (folder / "dataflow.py").exists() == (how == "dataflow")
    assert (folder / "affinities.json").exists() != own
    checked = check(folder, 0.5, runs=2)
    assert checked.median_s > 0
    assert checked.outputs_hold
    assert checked.output_error is not None
    wrong = np.fromfile(folder / "expected" / "0.bin", np.float32) + 100
    wrong.tofile(folder / "expected" / "0.bin")
    assert not check(folder, 0.5, runs=1).outputs_hold


def test_texts_are_run_and_not_compared(tmp_path: Path) -> None:
    options: Any = QUICK
    evaluator = make_evaluator(str(FILES["string_labels"]), TWO_CPUS, **options)
    folder = deployed(tmp_path / "texts", evaluator, won(OPENVINO, (), "AUTO:CPU"))
    assert check(folder, None, runs=1).output_error is None
    assert not (folder / "expected").exists()


def test_a_program_that_fails_says_why(by_hetero: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(by_hetero, tmp_path / "copy")
    (folder / "affinities.json").write_text("{}")
    with pytest.raises(DevicePlacementError, match=r"fails: KeyError.*--resume"):
        check(Path(folder), 0.5, runs=1)


def test_another_result_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    folder = deployed(tmp_path / "one", measured(), won("dataflow"))
    deployed(folder, measured(), won(OPENVINO, (), "AUTO:CPU"))
    left = {path.name for path in folder.iterdir()}
    assert left.isdisjoint({"placement.json", "affinities.json", "dataflow.py"})
    assert json.loads((folder / "run.json").read_text())["device_name"] == "AUTO:CPU"


@pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("g++")), reason="there is no C++ compiler"
)
def test_the_program_in_cpp_compiles_and_gives_the_same(by_hetero: Path, tmp_path: Path) -> None:
    build = tmp_path / "build"
    for command in (
        ["cmake", "-S", by_hetero, "-B", build, f"-DPython3_EXECUTABLE={sys.executable}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([build / "run", by_hetero, "3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("HETERO:CPU,CPU_F32: median ")
    error = float(done.stdout.split("relative L2 error ")[1])
    assert error < 0.1
    assert error == pytest.approx(check(by_hetero, 0.5, runs=1).output_error, rel=0.01)
    done = subprocess.run([build / "run", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("run: ")


@pytest.mark.skipif(WINDOWS, reason="Windows has no device that is always full")
def test_a_full_disk_is_an_error_and_no_broken_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"can't be written whole to .*model\.xml"):
        deploy(tmp_path, measured(), won("hetero"), None, 0.5)


def test_a_disk_without_room_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_room(tmp_path, measured())
    monkeypatch.setattr(deployment, "SPARE_BYTES", shutil.disk_usage(tmp_path).total)
    with pytest.raises(DevicePlacementError, match=r"MiB of free space .* Free space there"):
        check_room(tmp_path, measured())
