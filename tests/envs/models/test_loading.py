from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import opset13 as op

from device_placement.envs import ModelError, load_model, model_hash
from device_placement.envs.models import zoo
from device_placement.envs.models.loading import parse_input_shapes
from device_placement.envs.models.normalisation import normalise, original_name


def small_model(shape: list[int], first: float = 1.0) -> ov.Model:
    """x * w + w, with one Constant that two ops share."""
    x = op.parameter(shape, np.float32, name="x")
    w = op.constant(np.array([first, 2, 3], dtype=np.float32))
    y = op.add(op.multiply(x, w), w)
    return ov.Model([op.result(y)], [x], "small")


def run(model: ov.Model, value: np.ndarray) -> np.ndarray:
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    return ov.Core().compile_model(model, "CPU", config)(value)[0]


def test_names_are_topological_index_and_type_and_the_original_stays() -> None:
    model = load_model("diamond")
    ops = model.get_ordered_ops()
    names = [one.get_friendly_name() for one in ops]
    assert names == [f"op{i}_{one.get_type_name()}" for i, one in enumerate(ops)]
    raw = {one.get_friendly_name() for one in zoo.build("diamond").get_ops()}
    assert {original_name(one) for one in ops} <= raw


def test_each_constant_has_one_consumer_and_the_result_is_unchanged() -> None:
    raw = small_model([2, 3])
    model = load_model(raw)
    constants = [one for one in model.get_ops() if one.get_type_name() == "Constant"]
    assert len(constants) == 2
    assert all(len(one.output(0).get_target_inputs()) == 1 for one in constants)
    value = np.ones((2, 3), dtype=np.float32)
    np.testing.assert_array_equal(run(model, value), run(raw, value))


def test_loading_leaves_the_given_model_alone_and_normalising_twice_changes_nothing() -> None:
    raw = small_model([2, 3])
    names = [one.get_friendly_name() for one in raw.get_ordered_ops()]
    once = load_model(raw)
    assert [one.get_friendly_name() for one in raw.get_ordered_ops()] == names
    assert model_hash(normalise(once)) == model_hash(once)


def test_a_hash_is_of_structure_and_weights_not_of_names() -> None:
    raw = small_model([2, 3])
    renamed = raw.clone()
    for index, one in enumerate(renamed.get_ops()):
        one.set_friendly_name(f"other{index}")
    assert model_hash(load_model(renamed)) == model_hash(load_model(raw))
    assert model_hash(load_model(small_model([2, 3], 1.5))) != model_hash(load_model(raw))
    assert model_hash(load_model(small_model([4, 3]))) != model_hash(load_model(raw))


def test_a_hash_is_the_same_in_another_process() -> None:
    code = "from device_placement.envs import *; print(model_hash(load_model('diamond')))"
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert other == model_hash(load_model("diamond"))


def test_a_saved_model_loads_from_xml_and_runs_alike(tmp_path: Path) -> None:
    raw = small_model([2, 3])
    path = tmp_path / "small.xml"
    ov.save_model(raw, path, compress_to_fp16=False)
    value = np.full((2, 3), 0.5, dtype=np.float32)
    np.testing.assert_array_equal(run(load_model(str(path)), value), run(raw, value))


def test_a_normalised_model_that_was_saved_in_fp16_is_normalised_again(tmp_path: Path) -> None:
    path = tmp_path / "again.xml"
    ov.save_model(load_model(small_model([2, 3])), path, compress_to_fp16=True)
    model = load_model(path)
    ops = model.get_ordered_ops()
    assert [one.get_friendly_name() for one in ops] == [
        f"op{i}_{one.get_type_name()}" for i, one in enumerate(ops)
    ]
    assert "Convert" not in {one.get_type_name() for one in ops}


def test_fp16_decompression_is_folded_away(tmp_path: Path) -> None:
    path = tmp_path / "small.xml"
    ov.save_model(small_model([2, 3]), path, compress_to_fp16=True)
    kinds = [one.get_type_name() for one in load_model(path).get_ops()]
    assert "Convert" not in kinds


def test_dynamic_shapes_need_input_shapes() -> None:
    raw = small_model([-1, 3])
    with pytest.raises(ModelError, match=r"Dynamic shapes in .* x \[\?,3\].*input_shapes="):
        load_model(raw)
    for shapes in ({"x": [5, 3]}, [[5, 3]]):
        assert list(load_model(raw, input_shapes=shapes).output(0).get_shape()) == [5, 3]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"y": [5, 3]}, "Unknown model input 'y'; allowed: x"),
        ([[5, 3], [1]], "Got 2 input shapes"),
        ({"x": [5, 7]}, "do not fit"),
    ],
)
def test_wrong_input_shapes_are_refused(shapes: object, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(small_model([-1, 3]), input_shapes=shapes)  # type: ignore[arg-type]


def test_a_shape_that_depends_on_data_is_loaded_and_hashed() -> None:
    x = op.parameter([4], np.float32, name="x")
    model = load_model(ov.Model([op.result(op.non_zero(x, "i64"))], [x], "data"))
    assert str(model.output(0).get_partial_shape()) == "[1,..4]"
    assert model_hash(model) == model_hash(load_model(model))


def test_wrong_sources_say_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"resnet5.*Did you mean 'resnet50'"):
        load_model("resnet5")
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        load_model(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not a file"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="int"):
        load_model(3)


@pytest.mark.parametrize("name", ["broken.xml", "broken.onnx", "broken.pb", "broken.txt"])
def test_broken_files_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"<net not a model")
    with pytest.raises(ModelError, match=name):
        load_model(path)


def test_an_xml_without_its_weights_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weightless.xml"
    ov.save_model(small_model([2, 3]), path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"weightless\.xml"):
        load_model(path)


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("", None),
        (" ; ", None),
        ("x=1,3,224,224", {"x": [1, 3, 224, 224]}),
        ("ids = 1, 128 ; mask=2", {"ids": [1, 128], "mask": [2]}),
        ("serving=ids=1,8;", {"serving=ids": [1, 8]}),
    ],
)
def test_input_shapes_are_read(text: str, shapes: object) -> None:
    assert parse_input_shapes(text) == shapes


@pytest.mark.parametrize("text", ["x", "x=", "=1,2", "x=1,a", "x=1,-1", "x=0", "x=1,,2", "x=1;x=2"])
def test_unreadable_shapes_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="Can't read the input shape"):
        parse_input_shapes(text)


def attention(fused: bool) -> ov.Model:
    """Attention of 12 heads over 128 tokens, its mask an input as where HETERO cuts."""
    weights = op.constant(np.eye(64, dtype=np.float32))
    inputs = [op.parameter([1, 128, 12, 64], np.float32, name=name) for name in "qkv"]
    order = op.constant([0, 2, 1, 3])
    q, k, v = (op.transpose(op.matmul(one, weights, False, False), order) for one in inputs)
    mask = op.parameter([1, 1, 1, 128], np.float32, name="mask")
    if fused:
        result = op.scaled_dot_product_attention(q, k, v, mask)
    else:
        scores = op.multiply(op.matmul(q, k, False, True), op.constant(np.float32(0.125)))
        result = op.matmul(op.softmax(op.add(scores, mask), 3), v, False, False)
    return ov.Model([op.result(op.transpose(result, order))], [*inputs, mask], "attention")


@pytest.mark.parametrize("fused", [False, True])
def test_an_attention_is_right_in_bf16_when_its_mask_comes_from_elsewhere(fused: bool) -> None:
    """OpenVINO 2026.4.1 computes it wrongly on CPUs with bf16 unless it is written our way."""
    raw = attention(fused)
    model = load_model(raw)
    generator = np.random.default_rng(0)
    inputs = [generator.standard_normal(port.get_shape(), np.float32) for port in raw.inputs]
    inputs[3] = np.where(inputs[3] > 0, 0, -10000).astype(np.float32)
    core = ov.Core()
    exact = core.compile_model(raw, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(inputs)[0]
    for hint in ("f32", "bf16"):
        got = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})(inputs)[0]
        assert np.linalg.norm(got - exact) < 0.02 * np.linalg.norm(exact)


def test_torch_modules_and_their_onnx_exports_load_and_run(tmp_path: Path) -> None:
    import torch

    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 16, 5),
    ).eval()
    example = torch.randn(1, 3, 4, 4)
    expected = module(example).detach().numpy()
    path = tmp_path / "module.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's own exporter
        torch.onnx.export(module, (example,), str(path), dynamo=False)
    for model in (load_model(module, example_input=example), load_model(path)):
        np.testing.assert_allclose(run(model, example.numpy()), expected, atol=1e-5)
    with pytest.raises(ModelError, match="example_input"):
        load_model(module)
