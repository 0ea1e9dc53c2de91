"""Algorithms that a benchmark compares: placers, presets, their variants, and a user's own."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from device_placement.agents.placers import PLACERS, make_placer
from device_placement.agents.placers.base import BudgetedEvaluator, Placer, PlacerResult, Trace
from device_placement.agents.presets import PRESETS
from device_placement.envs.env import DevicePlacementEnv
from device_placement.envs.errors import DevicePlacementError, unknown
from device_placement.envs.evaluation import Evaluator
from device_placement.envs.parts import COSTS
from device_placement.envs.placement import check_assignment
from device_placement.envs.repair.repairer import REPAIRS

# These are not random, so one run is enough.
DETERMINISTIC = (
    *("single", "automatic", "heft", "m_etf", "greedy", "lookahead", "stages"),
    *("contiguous", "min_cut"),
)

# These are exact under one schedule only.
SCHEDULE_OF = {"min_cut": "sequential", "contiguous": "max_load"}

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "hsdag_without_output_shape": {"preset": "hsdag", "without": ("output_shape",)},
    "hsdag_without_position": {"preset": "hsdag", "without": ("position_sinusoid",)},
    "hsdag_without_structure": {
        "preset": "hsdag",
        "without": ("in_degree", "out_degree", "fractal_dimension"),
    },
    "nodewise_ppo_with_costs": {"preset": "nodewise_ppo", "costs": "profile"},
    "hsdag_ppo_with_costs": {"preset": "hsdag_ppo", "costs": "profile"},
    "gdp_with_costs": {"preset": "gdp", "costs": "profile"},
    "placeto_with_costs": {"preset": "placeto", "costs": "profile"},
    **{
        f"{preset}_{repair}": {"preset": preset, "repair": repair}
        for preset in ("ppo", "hsdag_ppo", "construct_ppo")
        for repair in REPAIRS[1:]
    },
}
"""Name -> fields of its `PresetPlacer`. The first are HSDAG's ablations; the last repair."""

EVERYONE = (*PLACERS, *PRESETS)
ADVICE = (
    "Give a placer, a preset, or MODULE:FUNCTION of your own: a function of (evaluator, budget, "
    "seed) or (env, budget, seed) that returns a device number for each group, or None."
)


@dataclass(frozen=True)
class OwnAlgorithm:
    """Placer that calls a user's function.

    Args:
        function: takes an evaluator or an environment, the budget and the seed; returns
            (num_groups,) device numbers, or None. The result is the best that it evaluated or
            returned.
    """

    function: Callable[..., Sequence[int] | None]

    def place(self, evaluator: Evaluator, budget: int, seed: int) -> PlacerResult:
        """Search, and return the best placement; see `Placer`.

        Raises:
            BudgetError: when the function requests more than the budget.
            PlacementError: when it returns something other than a placement.
        """
        trace = Trace(evaluator, budget)
        limited = BudgetedEvaluator(trace)
        takes_env = first_parameter(self.function) == "env"
        world = DevicePlacementEnv(evaluator=limited) if takes_env else limited
        found = self.function(world, budget=budget, seed=seed)
        if found is not None:
            check_assignment(trace.recorder.coarse, np.asarray(found), len(trace.recorder.devices))
            limited.evaluate(found)
        return trace.result()


def find_algorithm(name: str) -> Placer:
    """Return the algorithm with a name.

    Args:
        name: of a placer, a preset or a variant; or ``module:function``, where the module may also
            be the path of a file.

    Raises:
        DevicePlacementError: when no algorithm has that name, or the function takes other
            arguments.

    >>> find_algorithm("hsdag_without_position")  # doctest: +ELLIPSIS
    PresetPlacer(preset='hsdag', ... without=('position_sinusoid',), costs=None, ...)
    """
    if ":" not in name:
        if name in PLACERS:
            return make_placer(name)
        if name not in (*PRESETS, *VARIANTS):
            raise DevicePlacementError(
                f"{unknown('placer', name, (*EVERYONE, *VARIANTS))} {ADVICE}"
            )
        from device_placement.agents.training.preset_placer import (
            PresetPlacer,  # with torch, which takes seconds
        )

        if name in VARIANTS:
            return PresetPlacer(**VARIANTS[name])
        return PresetPlacer(name)
    module, _, attribute = name.rpartition(":")
    function = getattr(_load(module), attribute, None)
    if not callable(function) or first_parameter(function) not in ("env", "evaluator"):
        raise DevicePlacementError(f"{module!r} has no such function {attribute!r}. {ADVICE}")
    return OwnAlgorithm(function)


def sees_costs(name: str) -> bool:
    """Return whether an algorithm of this name sees the costs of groups and transfers.

    >>> sees_costs("cp_sat"), sees_costs("gdp_with_costs"), sees_costs("gdp")
    (True, True, False)
    """
    if name in PLACERS:
        return PLACERS[name].needs_costs or PLACERS[name].sees_costs
    chosen = VARIANTS.get(name, {"preset": name})
    found = PRESETS.get(chosen["preset"])
    own = {one.costs for one in found.formulations.values()} if found else set[str]()
    return any(COSTS[one] for one in ([chosen["costs"]] if "costs" in chosen else own))


def first_parameter(function: Callable[..., Any]) -> str:
    """Return the name of a function's first parameter; empty if it has none."""
    return next(iter(inspect.signature(function).parameters), "")


def _load(module: str) -> ModuleType:
    """Import a module by name, also from the current folder, or by the path of its file."""
    path = Path(module)
    if path.suffix == ".py":
        full = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
        spec = importlib.util.spec_from_file_location(f"own_{full[:16]}", path)
        if spec is None or spec.loader is None or not path.is_file():
            raise DevicePlacementError(f"There is no file {module!r}. {ADVICE}")
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = loaded  # as dataclasses look for it there
        _find_modules_beside(path)
        spec.loader.exec_module(loaded)
        return loaded
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise DevicePlacementError(f"There is no module {module!r} here. {ADVICE}") from error


_searched: list[str] = []  # the folder of the last algorithm that is a file, if it was added


def _find_modules_beside(path: Path) -> None:
    """Let an algorithm import from its folder, and get none of an earlier algorithm's modules."""
    folder = str(path.absolute().parent)
    while _searched and _searched[-1] != folder:
        earlier = _searched.pop()
        sys.path.remove(earlier)
        for name, module in [*sys.modules.items()]:
            if "." not in name and _folder_of(module) == earlier:
                _forget(name)
    if folder not in sys.path:
        sys.path.insert(0, folder)
        _searched.append(folder)


def _folder_of(module: ModuleType) -> str:
    """Return the folder that a module or package was imported from; empty if there is none."""
    file = getattr(module, "__file__", None)
    if not file:
        return ""
    folder = Path(file).parent
    return str(folder.parent if hasattr(module, "__path__") else folder)


def _forget(name: str) -> None:
    for other in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[other]
