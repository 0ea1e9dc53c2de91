from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from device_placement.agents import RecordingEvaluator, make_placer
from device_placement.envs import (
    BaseEvaluator,
    DevicePlacementEnv,
    DevicePlacementError,
    Evaluation,
    Evaluator,
    EvaluatorWrapper,
    MeasureConfig,
    OpenVINOEvaluator,
    SimulatedEvaluator,
    make_evaluator,
)
from device_placement.envs.factory import EvaluatorOptions
from device_placement.envs.measuring.config import MeasureOptions, make_measure_config
from scripted import simulated_diamond

MEMBERS = sorted(name for name in vars(Evaluator) if not name.startswith("_"))


class Own(BaseEvaluator):
    """All that an evaluator of one's own has to define."""

    def __init__(self) -> None:
        self.coarse, self.devices = simulated_diamond().coarse, simulated_diamond().devices

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        return Evaluation(time_s=1.0 + sum(assignment))


class Unfinished:
    """Has groups and devices, and nothing else."""

    def __init__(self) -> None:
        self.coarse, self.devices = simulated_diamond().coarse, simulated_diamond().devices


class Closing(EvaluatorWrapper):
    """Counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        self.closed += 1
        super().close()


def members(kind: type[Any]) -> set[str]:
    """What a class has, or sets on its objects."""
    return {*dir(kind), *kind.__init__.__code__.co_names}


@pytest.mark.parametrize("kind", [OpenVINOEvaluator, SimulatedEvaluator, EvaluatorWrapper, Own])
def test_every_evaluator_has_what_the_protocol_names(kind: type[Any]) -> None:
    assert set(MEMBERS) <= members(kind)


def test_an_evaluator_of_ones_own_works_in_environment_and_placer() -> None:
    env = DevicePlacementEnv(evaluator=Own(), horizon=1)
    env.reset(seed=0)
    _, reward, *_ = env.step([0, 0, 0, 1])
    assert reward == -2000.0
    env.close()
    assert make_placer("local_search").place(Own(), 10, 0).time_s == 1.0
    with pytest.raises(DevicePlacementError, match=r"Got Own, which has no costs to plan with"):
        make_placer("min_cut").place(Own(), 10, 0)
    with pytest.raises(DevicePlacementError, match=r"Own, which does not measure"):
        env.validate([0, 0, 0, 1])


def test_an_evaluator_that_lacks_something_is_refused_with_its_name() -> None:
    lacking: Any = Unfinished()
    with pytest.raises(DevicePlacementError, match=r"Unfinished.*evaluate.*BaseEvaluator"):
        DevicePlacementEnv(evaluator=lacking)


@pytest.mark.parametrize(
    "wrap", [EvaluatorWrapper, lambda inner: RecordingEvaluator(inner, 20), Closing]
)
def test_a_wrapper_tells_what_the_inner_evaluator_tells(
    wrap: Callable[[Evaluator], EvaluatorWrapper],
) -> None:
    inner = simulated_diamond()
    wrapped = wrap(EvaluatorWrapper(inner))
    for name in set(MEMBERS) - {"evaluate", "prefetch", "close"}:
        assert getattr(wrapped, name) is getattr(inner, name)
    assert wrapped.evaluate([0, 1, 0, 0]).time_s == inner.evaluate([0, 1, 0, 0]).time_s
    assert make_placer("min_cut").place(wrapped, 10, 0).proven


def test_closing_a_wrapper_closes_what_it_wraps() -> None:
    inner = Closing(simulated_diamond())
    EvaluatorWrapper(inner).close()
    assert inner.closed == 1


def test_the_options_of_measuring_are_the_fields_of_the_configuration() -> None:
    hints = typing.get_type_hints(MeasureConfig)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(MeasureConfig)}
    assert typing.get_type_hints(MeasureOptions) == fields
    assert MeasureOptions.__total__ is False


def test_the_options_of_an_evaluator_are_the_arguments_of_make_evaluator() -> None:
    arguments = inspect.signature(make_evaluator).parameters.keys()
    own = EvaluatorOptions.__annotations__.keys() - MeasureOptions.__annotations__.keys()
    assert own == arguments - {"model", "devices", "evaluator", "options"}


def test_options_take_precedence_over_the_configuration_they_change() -> None:
    @dataclasses.dataclass(frozen=True)
    class Command(MeasureConfig):
        extra: str = "of a command"

    changed = make_measure_config(Command(timing="plain", requests=2), requests=3)
    assert type(changed) is MeasureConfig
    assert (changed.timing, changed.requests) == ("plain", 3)
    evaluator = make_evaluator(
        "diamond",
        "CPU,CPU_B:INFERENCE_PRECISION_HINT=f32",
        measuring=MeasureConfig(timing="plain", store=None, isolation="none"),
        requests=3,
    )
    assert (evaluator.config.timing, evaluator.config.requests) == ("plain", 3)
