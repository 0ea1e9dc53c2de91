"""Placements as text and as pictures, on two bundled models."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from device_placement.envs.errors import DevicePlacementError, PlacementError
from device_placement.envs.graph.coarsening import coarsen
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.models.loading import load_model
from device_placement.envs.rendering.graph import (
    CROSSING_COLOUR,
    EDGE_COLOUR,
    lay_out,
    render_picture,
)
from device_placement.envs.rendering.style import PALETTE, UNPLACED_COLOUR
from device_placement.envs.rendering.text import MAX_LINES, align, render_text

NAN = float("nan")
DEVICES = ("CPU", "GPU.0", "NPU")
GRAPH = slice(70, 640)  # rows of the picture, without title and legend
SMOOTHED = 100  # pixels that smoothing may give a colour that was not drawn

either_model = pytest.mark.parametrize("name", ["diamond", "resnet50"])


@pytest.fixture(scope="module")
def coarse_graphs():
    names = ("diamond", "resnet50")
    return {name: coarsen(read_graph(load_model(name), "CPU")) for name in names}


def turns(coarse):
    """The devices in turn, so that every edge of a chain crosses."""
    return [group % len(DEVICES) for group in range(coarse.num_groups)]


def pixels(picture, colour):
    """How many pixels have exactly this colour."""
    wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return int((picture == wanted).all(axis=-1).sum())


def test_text_names_model_time_and_subgraphs(coarse_graphs):
    coarse = coarse_graphs["resnet50"]
    text = render_text(coarse, DEVICES, [0] * coarse.num_groups, 0.01234, 1)
    title, _, *rows = text.splitlines()
    assert title == f"resnet50: 12.3 ms, 1 subgraph, {coarse.num_groups} groups"
    assert rows[0].split()[:2] == [f"0-{coarse.num_groups - 1}", "CPU"]
    assert "Convolution" in rows[0]
    assert rows[1:] == [
        f"  CPU: {coarse.num_groups} groups, 100% of FLOPs",
        "  GPU.0: 0 groups, 0% of FLOPs",
        "  NPU: 0 groups, 0% of FLOPs",
    ]


def test_text_has_a_line_per_run(coarse_graphs):
    coarse = coarse_graphs["resnet50"]
    half = coarse.num_groups // 2
    rest = coarse.num_groups - half - 1
    lines = render_text(coarse, DEVICES, [0] * half + [2] + [-1] * rest, NAN, 0).splitlines()
    assert lines[0] == f"resnet50: not timed, {coarse.num_groups} groups"
    assert lines[2].split()[:2] == [f"0-{half - 1}", "CPU"]
    assert lines[3].split()[:2] == [f"{half}", "NPU"]
    assert lines[4].split()[:3] == [f"{half + 1}-{coarse.num_groups - 1}", "not", "placed"]
    assert lines[-1].startswith(f"  not placed: {rest} groups")


def test_text_of_many_runs_stays_short(coarse_graphs):
    coarse = coarse_graphs["resnet50"]
    lines = render_text(coarse, DEVICES, turns(coarse), 1.0, 9).splitlines()
    left = coarse.num_groups - MAX_LINES
    assert f"  ... {left} more runs, from group {MAX_LINES} on" in lines
    assert len(lines) == 1 + 1 + MAX_LINES + 1 + len(DEVICES)


@either_model
def test_shares_of_the_operations_add_up(coarse_graphs, name):
    coarse = coarse_graphs[name]
    text = render_text(coarse, DEVICES, turns(coarse), NAN, 0)
    shares = [int(line.split()[-3][:-1]) for line in text.splitlines() if "% of FLOPs" in line]
    assert sum(shares) == pytest.approx(100, abs=2)


@either_model
def test_picture_shows_every_device(coarse_graphs, name):
    coarse = coarse_graphs[name]
    picture = render_picture(coarse, DEVICES, turns(coarse), 0.01, 3)
    assert picture.shape == (720, 1280, 3)
    assert picture.dtype == np.uint8
    graph = picture[GRAPH]
    assert all(pixels(graph, colour) > 1000 for colour in PALETTE[: len(DEVICES)])
    assert pixels(graph, UNPLACED_COLOUR) < SMOOTHED


@either_model
def test_picture_depends_on_every_group(coarse_graphs, name):
    coarse = coarse_graphs[name]
    before = render_picture(coarse, DEVICES, [0] * coarse.num_groups, NAN, 0)
    for group in range(0, coarse.num_groups, 15):
        assignment = [0] * coarse.num_groups
        assignment[group] = 1
        after = render_picture(coarse, DEVICES, assignment, NAN, 0)
        assert pixels(before[GRAPH], PALETTE[1]) == 0
        assert pixels(after[GRAPH], PALETTE[1]) > 100


def test_picture_repeats_and_shows_time(coarse_graphs):
    coarse = coarse_graphs["diamond"]
    single = [0] * coarse.num_groups
    first, second, other = (render_picture(coarse, DEVICES, single, t, 1) for t in (1.0, 1.0, 2.0))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_unplaced_groups_are_grey_and_cross_nothing(coarse_graphs):
    coarse = coarse_graphs["resnet50"]
    assignment = [-1] * coarse.num_groups
    empty = render_picture(coarse, DEVICES, assignment, NAN, 0)
    assignment[0] = 0
    begun = render_picture(coarse, DEVICES, assignment, NAN, 0)
    assert pixels(begun[GRAPH], UNPLACED_COLOUR) < pixels(empty[GRAPH], UNPLACED_COLOUR)
    assert pixels(begun[GRAPH], CROSSING_COLOUR) < SMOOTHED


def test_edges_between_devices_are_dark(coarse_graphs):
    coarse = coarse_graphs["resnet50"]
    single, mixed = ([0] * coarse.num_groups, turns(coarse))
    pictures = [render_picture(coarse, DEVICES, some, NAN, 0)[GRAPH] for some in (single, mixed)]
    assert pixels(pictures[0], CROSSING_COLOUR) < SMOOTHED
    assert pixels(pictures[1], CROSSING_COLOUR) > 5 * SMOOTHED
    assert pixels(pictures[1], EDGE_COLOUR) < pixels(pictures[0], EDGE_COLOUR)


@either_model
@pytest.mark.parametrize("max_groups", [1, 3, None])
def test_groups_never_overlap(coarse_graphs, name, max_groups):
    coarse = coarsen(coarse_graphs[name].graph, max_groups=max_groups)
    layout = lay_out(coarse, 16 / 9)
    groups = layout.xy[: coarse.num_groups]
    distance = np.linalg.norm(groups[:, None] - groups, axis=-1)
    touching = layout.radius[:, None] + layout.radius
    assert (distance > touching)[~np.eye(len(groups), dtype=bool)].all()
    for axis, (low, high) in enumerate((layout.x_range, layout.y_range)):
        assert (layout.xy[:, axis] > low).all()
        assert (layout.xy[:, axis] < high).all()


def test_one_group_can_be_drawn(coarse_graphs):
    coarse = coarsen(coarse_graphs["diamond"].graph, max_groups=1)
    assert pixels(render_picture(coarse, ["CPU"], [0], NAN, 0), PALETTE[0]) > 1000


@pytest.mark.parametrize("draw", [render_text, render_picture])
def test_a_wrong_assignment_is_refused(coarse_graphs, draw):
    coarse = coarse_graphs["diamond"]
    with pytest.raises(PlacementError, match=f"each of the {coarse.num_groups} groups"):
        draw(coarse, DEVICES, [0] * (coarse.num_groups + 1), NAN, 0)
    with pytest.raises(PlacementError, match=r"to 3; .* to 2\."):
        draw(coarse, DEVICES, [3] * coarse.num_groups, NAN, 0)


def test_without_matplotlib_the_error_says_what_to_install(coarse_graphs, monkeypatch):
    for module in ("matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    coarse = coarse_graphs["diamond"]
    with pytest.raises(DevicePlacementError, match=r"pip install 'device-placement\[render\]'"):
        render_picture(coarse, DEVICES, [0] * coarse.num_groups, NAN, 0)


def test_align_keeps_columns():
    rows = [("a", "10", "x"), ("bcd", "2", "")]
    assert align(rows, right=[1]) == ["a    10  x", "bcd   2"]
