"""Broken placement files: only documented errors come out."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broken import TWO_CPUS, cases, damaged, pick, problem
from device_placement.envs import Placement, PlacementError, parse_devices
from device_placement.envs.placement import Claim

HUGE = 10**400


@functools.cache
def valid_placement() -> str:
    """What `Placement.save` writes."""
    coarse = problem()[1]
    assignment = [group % 2 for group in range(coarse.num_groups)]
    placement = Placement.from_groups(coarse, parse_devices(TWO_CPUS), assignment)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "placement.json"
        dataclasses.replace(placement, claim=Claim("CPU", 1.5, 0.01)).save(path)
        return path.read_text(encoding="utf-8")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["CPU", "CPU_F32", "CPU:A=1", "AUTO", "deep", HUGE, -0.0, 1, 2])
)
jsons = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


def containers(content: Any) -> list[Any]:
    """Every list and object of a JSON value that has something in it."""
    inner = content.values() if isinstance(content, dict) else content
    nested = [one for one in inner if isinstance(one, (dict, list))]
    return [
        *([content] if content else []),
        *(found for one in nested for found in containers(one)),
    ]


@st.composite
def twisted_placements(draw: st.DrawFn) -> str:
    """Valid JSON: fields are dropped, renamed, doubled or of another kind, or nest deeply."""
    content = json.loads(valid_placement())
    for _ in range(draw(st.integers(1, 3))):
        found = containers(content)
        if not found:
            break
        place = pick(draw, found)
        key = pick(draw, list(place) if isinstance(place, dict) else range(len(place)))
        value = place.pop(key)
        action = draw(st.sampled_from(["drop", "rename", "double", "set", "set"]))
        new = [draw(jsons)] if action == "set" else [] if action == "drop" else [value]
        if isinstance(place, list):
            place.extend(new * 2 if action == "double" else new)
        else:
            names = {"rename": [draw(st.text(max_size=5))], "double": [key, f"{key}."]}
            place.update((name, one) for one in new for name in names.get(action, [key]))
    text = json.dumps(content)
    if content and draw(st.integers(0, 3)) == 0:
        text = f"{valid_placement().rstrip().removesuffix('}')}, {text[1:]}"  # keys twice
    depth = draw(st.integers(0, 3000))
    text = text.replace('"deep"', "[" * depth + "]" * depth)
    return text.replace(f"{HUGE}", "9" * draw(st.sampled_from([400, 5000])))


def broken_placements() -> st.SearchStrategy[bytes]:
    deep = st.tuples(st.sampled_from(["[", '{"format":', "[[],"]), st.integers(500, 2000))
    valid = valid_placement().encode()
    texts = deep.map(lambda nest: nest[0] * nest[1]) | jsons.map(json.dumps) | twisted_placements()
    return (
        st.binary() | texts.map(str.encode) | twisted_placements().map(str.encode) | damaged(valid)
    )


@cases(1200)
@given(st.deferred(broken_placements))
def test_a_placement_is_loaded_and_fits_or_is_refused(folder: Path, content: bytes) -> None:
    path = folder / "placement.json"
    path.write_bytes(content)
    try:
        placement = Placement.load(path)
    except PlacementError:
        return
    placement.save(path)
    assert Placement.load(path) == placement
    check_use(placement)


def check_use(placement: Placement) -> None:
    """A placement gives each op of the diamond the device that it names for it, or refuses."""
    model, coarse = problem()
    device = {
        name: placement.devices[number].name
        for name, number in zip(placement.op_names, placement.op_devices, strict=True)
    }
    names = coarse.graph.op_names
    with contextlib.suppress(PlacementError):
        groups = placement.to_groups(coarse)
        chosen = [placement.devices[groups[group]].name for group in coarse.op_group]
        assert dict(zip(names, chosen, strict=True)) == device
    for devices in ("CPU_F32,CPU,CPU_C", "CPU"):
        with contextlib.suppress(PlacementError):
            moved = placement.with_devices(parse_devices(devices))
            chosen = [moved.devices[number].name for number in moved.op_devices]
            assert chosen == list(device.values())
    with contextlib.suppress(PlacementError):
        ops = placement.apply(model).get_ops()
        affinities = {op.get_friendly_name(): op.get_rt_info()["affinity"] for op in ops}
        assert {name: str(one.astype(str)) for name, one in affinities.items()} == device


def test_the_valid_placement_fits_and_lost_or_added_ops_do_not(folder: Path) -> None:
    model, coarse = problem()
    path = folder / "placement.json"
    content = json.loads(valid_placement())
    lost = dict(list(content["ops"].items())[1:])
    for ops in ({**content["ops"], "more": "CPU"}, lost, {}):
        path.write_text(json.dumps({**content, "ops": ops}))
        placement = Placement.load(path)
        for use in (placement.apply, placement.to_groups):
            with pytest.raises(PlacementError, match="differ in the ops"):
                use(model if use == placement.apply else coarse)
    path.write_text(json.dumps({**content, "ops": dict(list(content["ops"].items())[::-1])}))
    turned = Placement.load(path)
    assert turned.to_groups(coarse) == tuple(group % 2 for group in range(coarse.num_groups))
    check_use(turned)
