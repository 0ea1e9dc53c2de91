"""Several models side by side: one model, whose parts are those of each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from broken_models import whole_onnx
from device_placement.envs import ModelError, load_model
from device_placement.envs.models.loading import model_file, model_parts, save_model
from device_placement.envs.models.side_by_side import combine_models


def outputs(model: ov.Model, inputs: list[np.ndarray]) -> list[np.ndarray]:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return list(compiled(inputs).values())


def test_each_model_computes_what_it_does_alone() -> None:
    both, alone = load_model("diamond+diamond"), load_model("diamond")
    assert both.get_friendly_name() == "diamond+diamond-2"
    assert [port.get_names() for port in both.inputs] == [{"diamond/x"}, {"diamond-2/x"}]
    assert [port.get_names() for port in both.outputs] == [{"diamond/y"}, {"diamond-2/y"}]
    inputs = [np.full((1, 64), number, np.float32) for number in (1, 2)]
    expected = [outputs(alone, [one])[0] for one in inputs]
    for found, wanted in zip(outputs(both, inputs), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_files_and_names_mix_and_a_path_with_a_plus_is_one_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.onnx").write_bytes(whole_onnx().SerializeToString())
    save_model(load_model("diamond"), "a+b.xml")
    both = load_model("mine.onnx + diamond")
    names = {name for port in both.inputs for name in port.get_names()}
    assert {name.partition("/")[0] for name in names} == {"mine", "diamond"}
    assert model_parts("a+b.xml") == ("a+b.xml",)
    assert load_model("a+b.xml").get_friendly_name() == "diamond"
    assert model_file("a+b.xml") == str(tmp_path / "a+b.xml")
    assert model_file("mine.onnx+diamond") == ""


def test_models_are_not_changed_and_may_occur_twice() -> None:
    model = load_model("diamond")
    before = [op.get_friendly_name() for op in model.get_ordered_ops()]
    both = combine_models({"first": model, "second": model})
    assert [op.get_friendly_name() for op in model.get_ordered_ops()] == before
    assert [port.get_names() for port in model.inputs] == [{"x"}]
    assert len(both.get_ops()) == 2 * len(model.get_ops())


@pytest.mark.parametrize("name", ["diamond+nosuch", "resnet5+diamond"])
def test_an_unknown_one_is_named(name: str) -> None:
    unknown = next(part for part in name.split("+") if part != "diamond")
    with pytest.raises(ModelError, match=f"Unknown model '{unknown}'"):
        load_model(name)


def test_shapes_are_given_by_model_and_input() -> None:
    both = load_model("diamond+diamond", input_shapes={"diamond/x": [2, 64]})
    assert [list(port.shape) for port in both.outputs] == [[2, 64], [1, 64]]
