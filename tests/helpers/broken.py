"""Broken input of every kind, always the same: over 10,000 cases with those of the store."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import openvino as ov
from hypothesis import settings
from hypothesis import strategies as st

import graphs  # noqa: F401 -- for its profile: no deadline
from device_placement.envs import coarsen, load_model, read_graph
from device_placement.envs.graph.coarsening import CoarseGraph

TWO_CPUS = "CPU,CPU_F32:INFERENCE_PRECISION_HINT=f32;NUM_STREAMS=1"
SIZES = [-(2**63), -2, -1, 0, 1, 2, 3, 63, 64, 65, 2**26, 2**31, 2**40, 2**62, 2**63 - 1, 2**64]
WORDS = ["", " ", "-1", "0", "1,64,1", "9" * 20, "1e9", "nan", "?", "1..3", "\x01", "\xe4", "true"]


def cases(count: int) -> settings:
    return settings(max_examples=count, derandomize=True, database=None)


def pick(draw: st.DrawFn, items: Sequence[Any]) -> Any:
    return items[draw(st.integers(0, len(items) - 1))]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with stretches of it cut out, cut off, overwritten or put in elsewhere."""
    content = whole
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = start + draw(st.sampled_from([0, 1, 8, 100, len(content)]))
        source = draw(st.integers(0, len(whole)))
        patch = draw(st.binary(max_size=8) | st.just(whole[source : source + 60]))
        content = content[:start] + patch + content[stop:]
    return content


@functools.cache
def problem() -> tuple[ov.Model, CoarseGraph]:
    model = load_model("diamond")
    return model, coarsen(read_graph(model, TWO_CPUS))
