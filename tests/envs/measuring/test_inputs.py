from __future__ import annotations

import contextlib
import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.envs import (
    DevicePlacementEnv,
    DevicePlacementError,
    InputError,
    InventedInputsWarning,
    load_model,
    make_evaluator,
    save_inputs,
)
from device_placement.envs.measuring.cache import describe_reference
from device_placement.envs.measuring.compare import compare, contenders
from device_placement.envs.measuring.inputs import Samples, invented_inputs, read_inputs
from device_placement.envs.measuring.program import build_program
from device_placement.envs.measuring.verification import output_difference
from input_models import (
    DEVICES,
    FAST,
    constant,
    measuring,
    mixed,
    model_of,
    parameter,
    two_rates,
)

X, IDS = np.ones((2, 3), np.float32), np.array([3, 0])


def given(**changes: Any) -> dict[str, Any]:
    return {"x": X, "ids": IDS, **changes}


def outputs(model: ov.Model, inputs: Any) -> list[Any]:
    samples = read_inputs(model, inputs)
    return build_program(ov.Core(), model, "CPU", samples=samples).outputs


def test_given_values_are_run(tmp_path: Path) -> None:
    model = mixed()
    expected = X + np.arange(12).reshape(4, 3)[[3, 0]]
    np.savez(tmp_path / "one.npz", **given())
    for inputs in (given(), tmp_path / "one.npz", str(tmp_path / "one.npz"), [given()]):
        np.testing.assert_allclose(outputs(model, inputs)[0], expected)


def test_several_samples_are_run_in_turn(tmp_path: Path) -> None:
    model = mixed()
    samples = [given(ids=np.array([number, 1])) for number in range(4)] * 3
    save_inputs(tmp_path / "several.npz", samples)
    found = outputs(model, tmp_path / "several.npz")
    assert len(found) == 12
    for number, output in enumerate(found):
        np.testing.assert_allclose(output, X + np.arange(12).reshape(4, 3)[[number % 4, 1]])
    assert read_inputs(model, samples).key == read_inputs(model, tmp_path / "several.npz").key
    assert read_inputs(model, samples).key != read_inputs(model, samples[:4]).key


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_each_timing_goes_through_all_samples(objective: str) -> None:
    x, shape = ops.parameter([4], name="x"), ops.parameter([2], np.int64, name="shape")
    model = ov.Model([ops.reshape(x, shape, special_zero=False)], [x, shape])
    right, wrong = (
        {"x": np.zeros(4, np.float32), "shape": np.array(one)} for one in ([2, 2], [3, 3])
    )
    programs = [
        build_program(ov.Core(), model, "CPU", objective, 1, samples=read_inputs(model, samples))
        for samples in ([right, right], [right, wrong])
    ]
    assert programs[0].sample() > 0
    with pytest.raises(RuntimeError, match=r"(?i)shape"):
        programs[1].sample()


def test_numbers_of_python_become_the_type_of_their_input() -> None:
    model = two_rates()
    found = outputs(model, {"x": np.zeros((32, 32), np.float32), "rate": 16000})
    assert found[0][0, 0] == 8
    assert read_inputs(mixed(), given(x=[[1, 2, 3]] * 2)).samples[0][0].dtype == np.float32


KINDS = ["bf16", "f8e4m3", "f8e5m2", "u4", "i4", "f16", "f64", "u8", "boolean", "string"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_can_be_given(kind: str, tmp_path: Path) -> None:
    x = parameter([4], getattr(ov.Type, kind), "x")
    y = ops.gather(x, constant([3, 2, 1, 0]), constant(0)) if kind == "string" else x
    text = kind == "string"
    result = y if text else ops.relu(ops.convert(y, "f32"))
    model = load_model(ov.Model([ops.result(result)], [x], kind))
    plain = {"string": np.str_, "boolean": np.bool_, "u4": np.uint8, "i4": np.int8, "u8": np.uint8}
    plain |= {"f16": np.float16, "f64": np.float64}  # type: ignore[dict-item]
    values = np.array([1, 0, 1, 1]).astype(plain.get(kind, np.float32))
    save_inputs(tmp_path / "x.npz", [{"x": values}])
    found = outputs(model, tmp_path / "x.npz")[0]
    assert found.tolist() == (values[::-1] if text else values.astype(np.float32)).tolist()


WRONG: dict[str, tuple[Any, str]] = {
    "an unknown name": (
        given(idz=IDS),
        r"Unknown input 'idz'; allowed: x, ids.*Did you mean 'ids'",
    ),
    "a missing one": (
        {"x": X},
        r"without 'ids'; the model 'model' takes x \[2,3\] f32, ids \[2\] i64",
    ),
    "a wrong shape": (given(x=X[0]), r"shape \[3\] for the input 'x', which has \[2,3\]|\[2, 3\]"),
    "a wrong type": (given(ids=IDS.astype(np.int32)), r"int32 .* 'ids'.*i64.*astype\('int64'\)"),
    "floats for indices": (given(ids=IDS.astype(float)), r"float64 .* 'ids', which takes i64"),
    "fractions for indices": (given(ids=[0.5, 1]), r"float64 .* 'ids', which takes i64"),
    "texts": (given(x=np.array([["a"] * 3] * 2)), r"<U1 for the input 'x', which takes f32"),
    "objects": (given(ids=[{}, None]), r"'ids'.*NumPy can't make an array"),
    "ragged lists": (given(x=[[1], [1, 2]]), r"list for the input 'x'.*NumPy can't make an array"),
    "no samples": ([], r"without a sample"),
    "a number": (3, r"inputs of type int; give a dict"),
    "a list of arrays": ([X, IDS], r"inputs of type list; give a dict"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_with_advice(name: str) -> None:
    inputs, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        read_inputs(mixed(), inputs)


def test_numbers_that_a_narrow_type_lacks_are_refused() -> None:
    x = parameter([2], ov.Type.u4, "x")
    model = load_model(ov.Model([ops.result(ops.convert(x, "f32"))], [x], "narrow"))
    with pytest.raises(InputError, match=r"values from 3 to 16 .* u4; give 0 to 15"):
        read_inputs(model, {"x": np.array([3, 16], np.uint8)})


def test_an_input_given_by_two_names_is_refused() -> None:
    x = parameter([2], np.float32, "x")
    x.output(0).get_tensor().set_names({"x", "also"})
    model = load_model(ov.Model([ops.result(ops.relu(x))], [x], "named"))
    with pytest.raises(InputError, match=r"'also' twice|'x' twice"):
        read_inputs(model, {"x": np.zeros(2, np.float32), "also": np.zeros(2, np.float32)})


def archive(**files: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as written:
        for name, content in files.items():
            written.writestr(f"{name}.npy", content)
    return target.getvalue()


def array_bytes(values: Any, **options: Any) -> bytes:
    target = io.BytesIO()
    np.save(target, values, **options)
    return target.getvalue()


PICKLED = array_bytes(np.array([{}], dtype=object), allow_pickle=True)
WHOLE = archive(x=array_bytes(X), ids=array_bytes(IDS))
FILES: dict[str, tuple[bytes, str]] = {
    "text": (b"x = 1", "Can't read the inputs"),
    "nothing": (b"", "Can't read the inputs"),
    "one array": (array_bytes(X), "one array without a name"),
    "a cut one": (WHOLE[:200], "Can't read the inputs"),
    "pickles": (archive(x=PICKLED), "Can't read the inputs.*Object arrays"),
    "a damaged member": (WHOLE.replace(X.tobytes(), X.tobytes()[::-1]), "Can't read the inputs"),
    "another file": (archive(x=b"no array"), "Can't read the inputs|Got"),
    "an empty archive": (archive(), "without 'x', 'ids'"),
}


@pytest.mark.parametrize("name", FILES)
def test_broken_files_are_refused(name: str, tmp_path: Path) -> None:
    content, message = FILES[name]
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_inputs(mixed(), tmp_path / "file.npz")


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(InputError, match=r"Can't read the inputs .*numpy.savez"):
            read_inputs(mixed(), path)


def test_samples_in_a_file_are_numbered_without_a_gap(tmp_path: Path) -> None:
    arrays = {f"{number}/{name}": one for number in (0, 2) for name, one in given().items()}
    np.savez(tmp_path / "gap.npz", **arrays)
    with pytest.raises(InputError, match=r"numbered 0, 2; number them from 0 without a gap"):
        read_inputs(mixed(), tmp_path / "gap.npz")


def test_an_input_whose_own_name_begins_with_a_number_is_no_sample(tmp_path: Path) -> None:
    x = parameter([2], np.float32, "0/x")
    model = load_model(ov.Model([ops.result(ops.relu(x))], [x], "numbered"))
    for arrays in ({"0/x": np.ones(2, np.float32)}, {"0/0/x": np.ones(2, np.float32)}):
        np.savez(tmp_path / "x.npz", **arrays)
        assert len(read_inputs(model, tmp_path / "x.npz").samples) == 1


def test_objects_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="objects as '0/x'"):
        save_inputs(tmp_path / "x.npz", [{"x": np.array([{}])}])
    assert list(tmp_path.iterdir()) == []


def test_inputs_belong_to_the_problem() -> None:
    model = mixed()
    usual = measuring(model)
    other = measuring(model, inputs=given())
    same = measuring(model, inputs={name: given()[name].copy() for name in ("ids", "x")})
    known, changed, again = (one._describe(0) for one in (usual, other, same))
    assert "inputs" not in known  # as before there were any
    assert changed["inputs"] == again["inputs"] == other.samples.key
    assert known == {name: value for name, value in changed.items() if name != "inputs"}
    assert describe_reference(other.core, "", other.devices[0], other.config) == (
        describe_reference(other.core, "", other.devices[0], other.config, "")
    )


def test_measurements_for_other_inputs_are_not_reused(tmp_path: Path) -> None:
    model, store = mixed(), str(tmp_path / "store.sqlite")
    found = []
    for inputs in (None, given(), given(), given(ids=np.array([1, 1])), None):
        evaluator = measuring(model, store=store, inputs=inputs)
        found.append(evaluator.evaluate([1] * evaluator.coarse.num_groups).cached)
        evaluator.close()
    assert found == [False, False, True, False, True]


def test_the_worker_runs_the_given_inputs() -> None:
    data, i = parameter([3, 4], np.float32, "data"), parameter([2], np.int64, "i")
    drawn = ops.gather(data, i, constant(0))
    model = model_of(ops.relu(drawn), inputs=[data, i])
    samples = [
        {"data": np.ones((3, 4), np.float32), "i": np.array([number, 2])} for number in (0, 1)
    ]
    evaluator = measuring(model, inputs=samples, isolation="process", verify=True)
    with contextlib.closing(evaluator):
        found = evaluator.evaluate([1] * evaluator.coarse.num_groups)
        assert (found.error, found.output_error) == ("", 0.0)
        table = compare(evaluator, contenders(evaluator, {}), rounds=2, warmup=0)
        assert all(one.valid for one in table.values())


def test_verification_compares_each_sample() -> None:
    x, on = parameter([8], np.float32, "x"), parameter([], np.float32, "on")
    found = []
    for added in (1, 2):
        summed = ops.multiply(ops.add(x, constant(added, np.float32)), on)
        model = model_of(ops.relu(summed), inputs=[x, on])
        samples = [{"x": np.zeros(8, np.float32), "on": value} for value in (0, 1)]
        found.append(outputs(model, samples))
    assert output_difference(found[0][:1], found[1][:1]) == (0.0, 1.0)
    assert output_difference(*found)[0] == 0.5


def test_environments_and_evaluators_take_inputs(tmp_path: Path) -> None:
    save_inputs(tmp_path / "inputs.npz", [given(), given(ids=np.array([2, 2]))])
    env = DevicePlacementEnv(mixed(), DEVICES, inputs=str(tmp_path / "inputs.npz"), **FAST)
    _, info = env.reset(seed=0)
    assert info["best_time_s"] > 0
    assert len(env.evaluator.unwrapped.samples.samples) == 2
    env.close()
    with pytest.raises(DevicePlacementError, match=r"inputs, which are for measuring"):
        make_evaluator("diamond", "CPU,GPU", evaluator="simulator", inputs=given())


def test_invented_values_that_decide_what_runs_are_announced() -> None:
    model = two_rates()
    with pytest.warns(InventedInputsWarning, match=r"'rate' of 'model' decides .*\(If\).*inputs="):
        measuring(model)
    evaluator = measuring(model, inputs={"x": np.zeros((32, 32), np.float32), "rate": 16000})
    assert evaluator.evaluate([1] * evaluator.coarse.num_groups).valid


def test_samples_are_checked_once() -> None:
    samples = invented_inputs(mixed())
    assert isinstance(samples, Samples)
    assert read_inputs(mixed(), samples) is samples


def test_an_archive_that_is_too_large_unpacked_is_not_unpacked(tmp_path: Path) -> None:
    """The directory of a zip file says how much is read at most."""
    path = tmp_path / "bomb.npz"
    content = bytearray(archive(x=array_bytes(X), ids=array_bytes(IDS)))
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 24 : entry + 28] = (2**32 - 2).to_bytes(4, "little")  # its size, unpacked
    path.write_bytes(content)
    with pytest.raises(InputError, match="takes 4096 MiB unpacked, and may take 4096"):
        read_inputs(mixed(), path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_pipe_of_inputs_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "inputs.npz")
    with pytest.raises(InputError, match="not a regular file"):
        read_inputs(mixed(), tmp_path / "inputs.npz")
