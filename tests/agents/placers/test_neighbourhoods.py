"""Moves of windows, applied many times at once, and which of them are worth a look."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from device_placement.agents.placers.neighbourhoods import apply_moves, windows
from device_placement.agents.placers.posterior_sampling.placer import LARGE, one_blas_thread

UNITS, DEVICES, BATCH = 7, 3, 400


def test_only_what_no_single_move_leads_to_is_tried() -> None:
    generator = np.random.default_rng(0)
    spans = windows(UNITS)
    begins, ends = spans.argmax(axis=1), spans.argmax(axis=1) + spans.sum(axis=1)
    for count in (2, 3):
        allowed = generator.random((UNITS, DEVICES)) < 0.8
        choice = generator.integers(DEVICES, size=UNITS).astype(np.uint8)
        window = generator.integers(len(spans), size=(count, BATCH))
        device = generator.integers(DEVICES, size=(count, BATCH)).astype(np.uint8)
        some = choice, begins[window], ends[window], device, allowed
        found, _, number = apply_moves(*some, np.zeros(0, dtype=np.bool_))

        def moved(
            start: np.ndarray, one: int, to: int, allowed: np.ndarray = allowed
        ) -> np.ndarray:
            return np.where(spans[one] & allowed[:, to], np.uint8(to), start)

        singles = {
            moved(choice, one, to).tobytes() for one in range(len(spans)) for to in range(DEVICES)
        }
        expected = []
        for windows_of_one, devices_of_one in zip(window.T, device.T, strict=True):
            result = choice
            for one, to in zip(windows_of_one, devices_of_one, strict=True):
                result = moved(result, int(one), int(to))
            expected.append(result.tobytes())
        kept = [row.tobytes() for row in found[:number]]
        assert set(kept) >= set(expected) - singles - {choice.tobytes()}
        positions = iter(expected)
        assert all(one in positions for one in kept)  # in order
        assert number < BATCH


def test_no_choice_is_tried_twice_and_the_columns_are_named() -> None:
    generator = np.random.default_rng(1)
    spans, allowed = windows(UNITS), np.ones((UNITS, DEVICES), dtype=np.bool_)
    begins, ends = spans.argmax(axis=1), spans.argmax(axis=1) + spans.sum(axis=1)
    seen = np.zeros(DEVICES**UNITS, dtype=np.bool_)
    tried: list[bytes] = []
    for _ in range(3):
        window = generator.integers(len(spans), size=(2, BATCH))
        device = generator.integers(DEVICES, size=(2, BATCH)).astype(np.uint8)
        choice = np.zeros(UNITS, dtype=np.uint8)
        some = choice, begins[window], ends[window], device, allowed
        found, origin, number = apply_moves(*some, seen)
        for row, column in zip(found[:number], origin[:number], strict=True):
            expected = choice
            for one, to in zip(window[:, column], device[:, column], strict=True):
                expected = np.where(spans[one], to, expected)
            assert row.tolist() == expected.tolist()
        tried += [row.tobytes() for row in found[:number]]
    assert len(tried) == len(set(tried)) == seen.sum()


def test_small_matrices_are_left_to_one_thread_and_the_setting_comes_back() -> None:
    def threads() -> list[int]:
        return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]

    before = threads()
    with one_blas_thread(LARGE):
        assert set(threads()) == {1}
    assert threads() == before
    with one_blas_thread(LARGE + 1):
        assert threads() == before
