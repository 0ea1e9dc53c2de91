"""The rules of the search: they look at domains only, and links allow what may be added."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from constrained import constrained_costs
from device_placement.envs.costs import Costs
from device_placement.envs.repair import kernels
from device_placement.envs.repair.frame import make_frame

problems = st.builds(
    constrained_costs, st.integers(0, 2**31), groups=st.integers(5, 12), devices=st.integers(3, 6)
)


@settings(max_examples=200)
@given(problems, st.integers(0, 2**31))
def test_where_no_domain_changes_propagation_has_nothing_to_do(costs: Costs, seed: int) -> None:
    generator, frame = np.random.default_rng(seed), make_frame(costs)
    state = kernels.new_state(frame)
    if not kernels.propagate(frame, state):
        return
    free = {*range(costs.num_groups)}
    while free:
        forced = [group for group in sorted(free) if state.low[group] == state.high[group]]
        group = generator.choice(forced or sorted(free))
        free.remove(int(group))
        before = state.domain.copy()
        devices = np.flatnonzero((before[group] >> np.arange(costs.num_devices)) & 1)
        if not kernels.assign(frame, state, group, generator.choice(devices)):
            return
        after = state.domain.copy()
        possible = kernels.propagate(frame, state)
        if np.array_equal(before, after):
            assert possible
            assert np.array_equal(state.domain, after)
        if not possible:
            return


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 6))
def test_open_links_are_those_that_can_be_added(seed: int, devices: int) -> None:
    generator = np.random.default_rng(seed)
    state = kernels.State(*[np.zeros(devices, np.int64) for _ in kernels.State._fields])
    send = kernels._send
    for _ in range(devices):
        source, target = sorted(generator.integers(devices, size=2).tolist())
        sent, reached = state.sent.copy(), state.reached.copy()
        if send(sent, reached, source, target):
            state = state._replace(sent=sent, reached=reached)
    for one in range(devices):
        for other in range(devices):
            possible = send(state.sent.copy(), state.reached.copy(), one, other)
            assert bool(kernels._open_targets(state, one) >> other & 1) == possible
            assert bool(kernels._open_sources(state, other) >> one & 1) == possible
