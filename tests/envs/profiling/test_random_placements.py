"""Random placements to measure: a few cuts and many, of every share, and allowed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from device_placement.envs import coarsen
from device_placement.envs.profiling.random_placements import draw_placements
from graphs import make_graph


@given(st.integers(0, 2**32 - 1))
def test_drawn_placements_differ_and_respect_what_devices_support(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 2, (12, 3))
    rows[np.arange(12), generator.integers(0, 3, 12)] = 1
    edges = [(op, op + 1) for op in range(11)]
    coarse = coarsen(make_graph(edges, supported=rows.tolist()), "none")
    drawn = draw_placements(coarse, 20, generator)
    assert len(set(drawn)) == len(drawn) <= 20
    for one in drawn:
        assert len(set(one)) > 1
        assert coarse.supported[np.arange(coarse.num_groups), one].all()


def test_drawn_placements_have_few_cuts_and_many_all_shares_and_a_seed() -> None:
    coarse = coarsen(make_graph([(op, op + 1) for op in range(59)]), "none")
    drawn = np.array(draw_placements(coarse, 200, np.random.default_rng(0)))
    assert (drawn == draw_placements(coarse, 200, np.random.default_rng(0))).all()
    cuts = (np.diff(drawn, axis=1) != 0).sum(axis=1)
    assert cuts.min() == 1
    assert cuts.max() > 25
    assert np.ptp(drawn.mean(axis=1)) > 0.9
    two = coarsen(make_graph([(0, 1)]), "none")
    assert sorted(draw_placements(two, 9, np.random.default_rng(0))) == [(0, 1), (1, 0)]
