"""What is given to many copies: checked, and brought into the form of a value a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from device_placement.envs.errors import DevicePlacementError, PlacementError, choose
from device_placement.envs.execution.evaluation import Evaluator
from device_placement.envs.execution.simulator import SimulatedEvaluator
from device_placement.envs.graph import Bool

_ADVICE = "use gym.vector.SyncVectorEnv, or gym.make_vec(..., vectorization_mode='sync')."


def check_native(num_envs: int, formulation: str, evaluator: Any, settings: dict[str, Any]) -> None:
    """Check that the arguments are of copies that can be stepped natively.

    Raises:
        DevicePlacementError: when they are not.
    """
    if num_envs < 1:
        raise DevicePlacementError(f"Got num_envs={num_envs}; there must be 1 copy or more.")
    refused = {
        "the formulation 'refine'": formulation == "refine",
        "the evaluator 'openvino'": isinstance(evaluator, str) and evaluator == "openvino",
        "a render_mode": "render_mode" in settings,
    }
    for what, given in refused.items():
        if given:
            raise DevicePlacementError(f"The native vector env does not take {what}; {_ADVICE}")


def only_simulated(evaluators: Sequence[Evaluator]) -> tuple[SimulatedEvaluator, ...]:
    """The evaluators, when all of them simulate.

    Raises:
        DevicePlacementError: when one does not.
    """
    simulated = tuple(one for one in evaluators if isinstance(one, SimulatedEvaluator))
    if len(simulated) < len(evaluators):
        raise DevicePlacementError(f"The native vector env takes SimulatedEvaluators; {_ADVICE}")
    return simulated


def parse_autoreset(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode of a name.

    >>> parse_autoreset("SameStep")
    <AutoresetMode.SAME_STEP: 'SameStep'>
    """
    modes = {one.value: one for one in AutoresetMode}
    return mode if isinstance(mode, AutoresetMode) else choose("autoreset mode", mode, modes)


def check_mask(mask: Any, num_envs: int) -> Bool:
    """The copies to reset, (num_envs,), as an array of its own.

    Raises:
        DevicePlacementError: when it is none of bools, one a copy, one of them True.
    """
    result = np.array(mask)
    if result.shape != (num_envs,) or result.dtype != np.bool_ or not result.any():
        raise DevicePlacementError(
            f"Got a reset_mask of shape {result.shape} and type {result.dtype}; it takes a bool "
            f"for each of the {num_envs} copies, at least one of them True."
        )
    return result


def one_each(name: str, values: Any, num_envs: int) -> list[Any]:
    """A value for each copy: the given one for all, or the given ones.

    Raises:
        DevicePlacementError: when there are more or less of them than copies.
    """
    if values is None or isinstance(values, int | np.integer):
        return [values] * num_envs
    if len(values) != num_envs:
        raise DevicePlacementError(
            f"Got {len(values)} values of {name} for {num_envs} copies; give one each."
        )
    return list(values)


def check_actions(
    actions: Any, shape: tuple[int, ...] | None, num_devices: int, acting: Bool
) -> NDArray[np.int64]:
    """The actions of many copies as an array.

    Args:
        actions: device numbers.
        shape: what they must have, (num_envs, ...).
        num_devices: how many devices there are.
        acting: (num_envs,) the copies whose action counts.

    Raises:
        PlacementError: when the shape is another one, or a number names no device.
    """
    chosen = np.asarray(actions, dtype=np.int64)
    if chosen.shape != shape:
        raise PlacementError(f"Got actions of shape {chosen.shape}; these take {shape}.")
    wrong = (chosen < 0) | (chosen >= num_devices)
    if wrong.any() and wrong[acting].any():
        raise PlacementError(
            f"Got device {chosen[acting][wrong[acting]][0]} in an action; devices are numbered "
            f"0 to {num_devices - 1}."
        )
    return chosen
