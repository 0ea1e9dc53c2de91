"""Broken model files: only documented errors come out."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken import cases, damaged
from broken_models import (
    broken_irs,
    has_low_versions,
    twisted_onnx,
    whole_ir,
    whole_onnx,
    whole_tensorflow,
)
from device_placement.envs import ModelError, load_model
from loader import Loader


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


def check_load(loader: Loader, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert loader.load(path) in ("loaded", "refused")


def test_whole_files_load_and_what_is_no_file_does_not(loader: Loader, folder: Path) -> None:
    xml, weights = whole_ir()
    contents = {
        "whole.xml": xml,
        "whole.onnx": whole_onnx().SerializeToString(),
        "whole.pb": whole_tensorflow(),
    }
    (folder / "whole.bin").write_bytes(weights)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        assert loader.load(folder / name) == "loaded"
        empty = folder / f"empty{Path(name).suffix}"
        empty.touch()
        directory = folder / f"directory{empty.suffix}"
        directory.mkdir()
        for broken in (empty, directory, directory / "missing", folder / ("long" * 99)):
            assert loader.load(broken) == "refused"
    for name in (b"\xff.xml", b"\xff.onnx"):
        path = Path(os.fsdecode(bytes(folder) + b"/" + name))
        path.write_bytes(b"no model")
        with pytest.raises(ModelError, match="can't read the model file"):
            load_model(path)


@cases(500)
@given(
    content=st.binary(),
    suffix=st.sampled_from(["xml", "onnx", "pb", "tflite", "pdmodel", "pt", "meta", "foo", "bin"]),
    start=st.sampled_from([b"", b"<net ", b"\x08\x0a", b"\x1c\0\0\0TFL3"]),
)
def test_bytes_are_no_model(
    loader: Loader, folder: Path, content: bytes, suffix: str, start: bytes
) -> None:
    check_load(loader, folder / f"bytes.{suffix}", start + content)


@cases(900)
@given(content=st.deferred(broken_irs), kept=st.none() | st.sampled_from([0.0, 0.3, 1.0, 1.0, 1.0]))
def test_a_broken_ir_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes, kept: float | None
) -> None:
    """The weights are missing, cut off or whole."""
    path = folder / "broken.xml"
    weights = whole_ir()[1]
    path.with_suffix(".bin").unlink(missing_ok=True)
    if kept is not None:
        path.with_suffix(".bin").write_bytes(weights[: math.ceil(kept * len(weights))])
    check_load(loader, path, content)


@pytest.mark.parametrize("word", [b"diamond", b"left", b"MatMul", b"transpose_a"])
def test_a_name_that_is_no_utf8_is_refused(loader: Loader, folder: Path, word: bytes) -> None:
    xml, weights = whole_ir()
    (folder / "coded.bin").write_bytes(weights)
    check_load(loader, folder / "coded.xml", xml.replace(word, b"\xff"))


@cases(900)
@given((damaged(whole_onnx().SerializeToString()) | twisted_onnx()).filter(has_low_versions))
def test_a_broken_onnx_model_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes
) -> None:
    check_load(loader, folder / "broken.onnx", content)


@cases(300)
@given(damaged(whole_tensorflow()))
def test_a_broken_tensorflow_graph_is_loaded_or_refused(
    loader: Loader, folder: Path, content: bytes
) -> None:
    check_load(loader, folder / "broken.pb", content)
