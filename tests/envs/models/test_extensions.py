"""Models with ops of an extension: the CPU plugin's library is one that is always there."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import openvino as ov
import openvino.opset15 as ops
import pytest

from device_placement.envs import (
    DevicePlacementError,
    ModelError,
    load_model,
    make_core,
    make_evaluator,
    parse_devices,
)
from device_placement.envs.devices import EXTENSIONS_VARIABLE, cpu_plugin
from device_placement.envs.measuring.bench import BenchConfig
from device_placement.envs.measuring.timing import Timing
from device_placement.envs.measuring.worker import MODEL_FILE, Server
from problems import QUICK, TWO_CPUS

OWN = '<data scale="2" power="1" shift="0" out-type="f32" />'


@pytest.fixture
def library() -> str:
    folder = Path(ov.__file__).parent / "libs"
    name = cpu_plugin(ov.Core())
    return str(next(path for path in sorted(folder.rglob(f"*{name}*")) if path.is_file()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in which one Relu became an op of the plugin, which doubles its input."""
    path = tmp_path / "own.xml"
    x = ops.parameter([2, 8], np.float32, name="x")
    product = ops.matmul(ops.relu(x), ops.constant(np.eye(8, dtype=np.float32)), False, False)
    ov.save_model(ov.Model([ops.result(ops.exp(product))], [x], "own"), path, False)
    head, tail = path.read_text().split('type="ReLU" version="opset1">')
    path.write_text(f'{head}type="PowerStatic" version="cpu_plugin_opset">{OWN}{tail}')
    return path


def test_without_the_extension_the_error_says_what_to_do(path: Path) -> None:
    with pytest.raises(ModelError, match=rf"PowerStatic .* {EXTENSIONS_VARIABLE}"):
        load_model(path)


def test_the_measuring_process_has_the_extension(
    path: Path, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXTENSIONS_VARIABLE, library)
    evaluator = make_evaluator(path, TWO_CPUS, **QUICK | {"isolation": "process", "verify": True})
    types = evaluator.coarse.graph.op_types
    found = evaluator.evaluate([group % 2 for group in range(evaluator.coarse.num_groups)])
    evaluator.close()
    assert "PowerStatic" in types
    assert found.error == ""
    compiled = evaluator.core.compile_model(evaluator.model, "CPU_F32")
    values = compiled(np.full((2, 8), 0.5, np.float32))[0]
    np.testing.assert_allclose(values, np.e, rtol=1e-5)


def test_the_measuring_process_says_what_it_misses(path: Path) -> None:
    """As when the extension was added to another core of the process that starts it."""
    server = Server(io.BytesIO())
    folder = Path(server.make_folder())
    text = path.read_text().replace("cpu_plugin_opset", "own_opset")  # loading the CPU adds its own
    (folder / MODEL_FILE).write_text(text)
    (folder / MODEL_FILE).with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes())
    with pytest.raises(RuntimeError, match=rf"(?s)PowerStatic.*{EXTENSIONS_VARIABLE}"):
        server.load(BenchConfig(parse_devices("CPU"), (), Timing.named("plain")))
    server.clean_up()


def test_a_library_that_is_no_extension_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXTENSIONS_VARIABLE, str(path))
    for use in (lambda: make_core("CPU"), lambda: load_model(path)):
        with pytest.raises(DevicePlacementError, match=r"own\.xml.*Give paths of OpenVINO ext"):
            use()
