"""The study of HSDAG's settings, with tiny trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from device_placement.agents.presets import preset
from device_placement.agents.training.algorithms import check_overrides, make_algorithm
from device_placement.agents.training.policy_file import PolicyCard
from device_placement.benchmarks.hsdag_variants import (
    CHOSEN,
    PAPER,
    PRESET,
    VARIANTS,
    HsdagVariantsConfig,
    Training,
    best_of_groups,
    main,
    open_variant,
    read_trainings,
    row_of,
)
from device_placement.benchmarks.suite.problems import open_problem
from device_placement.benchmarks.suite.suites import PAPER as PROBLEMS
from device_placement.benchmarks.suite.suites import SUITES, Problem, Suite
from device_placement.envs import DevicePlacementError

TINY = Suite("one small problem", {"diamond on paper": Problem("diamond", "paper")}, budget=4)
ONE = Training(
    "paper", "diamond", 0, 10.0, 12.0, 18.0, 1.0, 5.0, 128, 14.0, 9.0, 2000, 900, True, 30.0
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def tiny_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cast(dict[str, Suite], SUITES), "tiny", TINY)


@pytest.mark.usefixtures("tiny_suite")
def test_it_prints_and_resumes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "variants.csv"
    config = HsdagVariantsConfig(("paper", "released"), "tiny", 2, episodes=2, out=str(path))
    assert main(config) == 0
    whole, shown = path.read_text(), capsys.readouterr().out
    assert "released: as released in all" in shown
    trainings = read_trainings(str(path))
    keys = [(one.variant, one.seed) for one in trainings]
    assert keys == [("paper", 0), ("paper", 1), ("released", 0), ("released", 1)]
    for one in trainings:
        assert one.found <= one.ceiling
        assert one.allowed <= one.ceiling
        assert one.proposals == 40
        assert 1 <= one.last_groups <= one.groups
    lines = whole.splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[4:]) + lines[3][:20])  # one killed, one missing
    assert main(config) == 0
    for again, before in zip(read_trainings(str(path)), sorted_last(trainings), strict=True):
        assert replace(again, seconds=0.0) == replace(before, seconds=0.0)
    assert capsys.readouterr().out == shown


def sorted_last(trainings: list[Training]) -> list[Training]:
    """The third one last, as it is made again."""
    return [*trainings[:2], trainings[3], trainings[2]]


def test_the_best_of_the_groups_is_the_best_of_all_their_placements() -> None:
    evaluator = open_variant(Problem("diamond", "paper"), "fusion")
    card = PolicyCard.of(PRESET, None, [evaluator])
    for passes in (1, 8):
        env = card.make_env(evaluator)
        algorithm = make_algorithm(PRESET, env, overrides={"extractor.passes": passes})
        found = best_of_groups(algorithm, env)
        singles = [evaluator.evaluate([device] * 4).time_s for device in range(2)]
        every = [evaluator.evaluate(one).time_s for one in np.ndindex(2, 2, 2, 2)]
        assert min(every) <= found <= min(singles)
        if passes == 8:  # all of it is one group
            assert found == min(singles)


def test_the_preset_is_the_variant_that_is_marked_as_such() -> None:
    own = preset(PRESET)
    expected = {**PAPER, **VARIANTS[CHOSEN].changes}
    assert VARIANTS[CHOSEN] == replace(
        VARIANTS["paper"], summary=VARIANTS[CHOSEN].summary, changes=VARIANTS[CHOSEN].changes
    )
    defaults = {"baseline": "none", "credit": "own", "n_epochs": 1}
    for name, value in expected.items():
        group = own.extractor if name.startswith("extractor.") else {**defaults, **own.algorithm}
        found = group.get(name.removeprefix("extractor."), value)
        assert found == value, name
    assert own.extractor["passes"] == expected["extractor.passes"]


def test_every_variant_can_be_made() -> None:
    for variant in VARIANTS.values():
        check_overrides(PRESET, {**PAPER, **variant.changes})
        assert set(variant.without) <= set(preset(PRESET).features)
    with pytest.raises(DevicePlacementError, match=r"Unknown variant 'papers'.*paper"):
        main(HsdagVariantsConfig(("papers",)))


def test_a_variant_is_of_the_suites_problem() -> None:
    problem = PROBLEMS["resnet50 on paper"]
    own, same = open_problem(problem), open_variant(problem, "fusion")
    placement = np.arange(own.coarse.num_groups) % 2
    assert own.evaluate(placement).time_s == same.evaluate(placement).time_s


def test_a_row_has_medians_and_the_range() -> None:
    others = [replace(ONE, seed=1, found=14.0, one_device=False), replace(ONE, seed=2, found=11.0)]
    row = row_of([ONE, *others])
    assert row[2:5] == ("11.0 (10.0 - 14.0)", "12.0", "18.0")
    assert row[-4:] == ("14 of 128", "9", "900 of 2000", "2 of 3")
