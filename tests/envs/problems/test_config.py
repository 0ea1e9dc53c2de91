from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from device_placement.envs import DevicePlacementError, GeneratorConfig
from device_placement.envs.costs import MAX_DEVICES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": (2, MAX_DEVICES + 1)}, r"Got devices=\(2, 17\); give .* from 2 to 16"),
        ({"devices": (1, 4)}, r"Got devices=\(1, 4\); .* whole numbers from 2 to 16"),
        ({"devices": (4, 3)}, "the smaller one first"),
        ({"groups": (30, 10)}, r"Got groups=\(30, 10\); .* the smaller one first"),
        ({"groups": ()}, r"Got groups=\(\); give \(least, most\)"),
        ({"groups": (10.0, 20.0)}, "two whole numbers from 4"),
        ({"groups": 30}, r"Got groups=30; give \(least, most\)"),
        ({"group_s": (0.0, 0.0)}, r"Got group_s=\(0.0, 0.0\); .* two numbers from 1e-12 to"),
        ({"group_s": (1e-3, math.inf)}, "from 1e-12 to 1e"),
        ({"transfer_ratio": (math.nan, 1.0)}, "Got transfer_ratio="),
        ({"families": ("inception",)}, "Unknown family of graphs 'inception'; allowed: layered,"),
        ({"families": ()}, r"Got families=\(\); give at least one of layered, branching"),
        ({"families": "layered"}, "as a tuple"),
        ({"families": ("layered", "layered")}, "each once"),
        ({"schedules": ("sequentail",)}, "Unknown schedule .*Did you mean 'sequential'"),
        ({"schedules": ()}, r"Got schedules=\(\); give at least one of sequential"),
        ({"limited_share": 1.5}, "Got limited_share=1.5; give a number from 0 to 1"),
        ({"twin_share": -0.1}, "Got twin_share=-0.1"),
        ({"type_spread": math.nan}, "Got type_spread=nan; give a number from 0 to 4"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DevicePlacementError, match=message):
        GeneratorConfig(**options)


def test_the_least_and_the_most_are_allowed() -> None:
    GeneratorConfig(groups=(4, 4), devices=(16, 16), limited_share=1, twin_share=0, type_spread=0)


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GeneratorConfig().groups = (1, 2)  # type: ignore[misc]
