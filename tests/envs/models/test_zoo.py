"""Bundled models: their size against the paper's table, their weights, their activations."""

from __future__ import annotations

import functools
import math

import numpy as np
import openvino as ov
import pytest

from device_placement.envs.errors import ModelError
from device_placement.envs.models.zoo import ZOO, build
from device_placement.envs.models.zoo.weights import LENGTH, Weights

COUNTS = {
    "resnet50": (396, 411),
    "inception_v3": (728, 768),
    "bert_base": (996, 1055),
    "two_towers": (115, 128),
    "diamond": (9, 9),
}
# Graph sizes given by HSDAG (Duan et al. 2024, arXiv:2405.14185)
PAPER_COUNTS = {"resnet50": (396, 411), "inception_v3": (728, 764), "bert_base": (1009, 1071)}
PARAMETERS = {
    "resnet50": 25.53e6,
    "inception_v3": 23.82e6,
    "bert_base": 109.48e6,
    "two_towers": 1.121e6,
    "diamond": 12288,
}
SHAPES = {
    "resnet50": ({"x": [1, 3, 224, 224]}, {"logits": [1, 1000]}),
    "inception_v3": ({"x": [1, 3, 299, 299]}, {"logits": [1, 1000]}),
    "bert_base": (
        {"input_ids": [1, 128], "attention_mask": [1, 128], "token_type_ids": [1, 128]},
        {"last_hidden_state": [1, 128, 768], "pooler_output": [1, 768]},
    ),
    "two_towers": (
        {"query": [1, 96, 128], "document": [1, 96, 128]},
        {"scores": [1, 16]},
    ),
    "diamond": ({"x": [1, 64]}, {"y": [1, 64]}),
}
OF_ORDER_1 = {"Convolution", "MatMul", "Relu", "Gelu", "Concat", "AvgPool", "MVN", "ReduceMean"}

every_model = pytest.mark.parametrize("name", sorted(ZOO))


@pytest.fixture(scope="module")
def models():
    return {name: build(name) for name in ZOO}


@pytest.fixture(scope="module")
def inferred(models):
    """What a model gives, and what its activations are, by name of the model."""
    return functools.cache(lambda name: infer(models[name].clone()))


def counts(model):
    ops = model.get_ops()
    return len(ops), sum(op.get_input_size() for op in ops)


def seeded_inputs(model):
    rng = np.random.default_rng(0)
    return {
        port.any_name: rng.standard_normal(port.shape, dtype=np.float32)
        if port.element_type == ov.Type.f32
        else rng.integers(0, 2, port.shape)
        for port in model.inputs
    }


def infer(model):
    """The outputs and the activations; the latter become outputs as well."""
    num_outputs = len(model.outputs)
    model.add_outputs(
        [
            op.output(0)
            for op in model.get_ordered_ops()
            if op.get_type_name() in OF_ORDER_1 and not op.get_friendly_name().endswith("scores")
        ]
    )
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    results = ov.compile_model(model, "CPU", config)(seeded_inputs(model))
    found = [results[i] for i in range(len(model.outputs))]
    return found[:num_outputs], found[num_outputs:]


def constants(model):
    """Value of every constant, by friendly name, not copied."""
    return {
        op.get_friendly_name(): op.data
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant"
    }


def structure(model):
    """Every op's name, type, attributes and inputs, in order."""
    return [
        (
            op.get_friendly_name(),
            op.get_type_name(),
            str(op.get_attributes()) if op.get_type_name() != "Constant" else "",
            [port.get_source_output().get_node().get_friendly_name() for port in op.inputs()],
        )
        for op in model.get_ordered_ops()
    ]


@every_model
def test_counts(models, name):
    assert counts(models[name]) == COUNTS[name]


@pytest.mark.parametrize("name", sorted(PAPER_COUNTS))
def test_counts_are_near_the_papers(models, name):
    assert counts(models[name]) == pytest.approx(PAPER_COUNTS[name], rel=0.02)


def test_diamond_has_four_computing_ops(models):
    idle = {"Parameter", "Constant", "Result"}
    ops = [op for op in models["diamond"].get_ordered_ops() if op.get_type_name() not in idle]
    assert {op.get_friendly_name() for op in ops} == {"source", "left", "right", "join"}


@every_model
def test_ports_and_names(models, name):
    model = models[name]
    ports = [
        {port.any_name: list(port.shape) for port in side} for side in (model.inputs, model.outputs)
    ]
    assert tuple(ports) == SHAPES[name]
    assert model.get_friendly_name() == name
    assert not model.is_dynamic()
    names = [op.get_friendly_name() for op in model.get_ops()]
    assert len(set(names)) == len(names)


@every_model
def test_weights_are_normal_numbers(models, name):
    floats = [v for v in constants(models[name]).values() if v.dtype.kind == "f"]
    assert sum(v.size for v in floats) == pytest.approx(PARAMETERS[name], rel=1e-3)
    for values in floats:
        magnitudes = np.abs(values)
        assert magnitudes.min() >= np.finfo(np.float16).smallest_normal
        assert np.isfinite(magnitudes.max())


@every_model
def test_two_builds_are_equal(models, name):
    again = build(name)
    assert structure(again) == structure(models[name])
    first, second = constants(models[name]), constants(again)
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[key], second[key]) for key in first)


@every_model
def test_outputs_are_finite_and_of_order_1(inferred, name):
    for output in inferred(name)[0]:
        assert np.isfinite(output).all()
        assert 0.5 < output.std() < 2


@every_model
def test_activations_are_of_order_1(inferred, name):
    stds = [float(output.std()) for output in inferred(name)[1]]
    print(f"{name}: activations' std from {min(stds):.2f} to {max(stds):.2f}")
    assert min(stds) > 0.1
    assert max(stds) < 5


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ModelError, match=r"Unknown model 'resnet5'.*Did you mean 'resnet50'"):
        build("resnet5")


def test_weights_do_not_depend_on_the_process():
    first = Weights(seed=0).normal((4,), std=1.0)
    assert first.tolist() == [-1.39453125, -0.74755859375, -0.11309814453125, -0.08770751953125]


@pytest.mark.parametrize("size", [7, LENGTH, 2 * LENGTH + 1])
def test_weights_have_the_size_asked_for_and_successive_ones_differ(size):
    weights = Weights(seed=0)
    first, second = weights.normal((size,), std=1.0), weights.normal((size,), std=1.0)
    assert first.shape == second.shape == (size,)
    assert not np.array_equal(first, second)


def test_weights_follow_the_mean_and_std():
    values = Weights(seed=0).normal((300, 1000), std=0.5, mean=2.0).astype(np.float64)
    assert values.mean() == pytest.approx(2.0, abs=5 * 0.5 / math.sqrt(LENGTH))
    assert values.std() == pytest.approx(0.5, rel=0.01)


def test_weights_avoid_denormals():
    values = Weights(seed=0).normal((1000,), std=1e-6)
    assert np.abs(values).min() >= np.finfo(np.float16).smallest_normal
    assert {-1, 1} == set(np.sign(values).tolist())
