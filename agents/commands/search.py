"""Commands `search` and `random`: run any placer, or a random search, within a budget."""

from __future__ import annotations

import contextlib
import dataclasses
import math

from device_placement.agents.commands.config import RandomConfig, SearchCommand
from device_placement.agents.placers import PLACERS, make_placer
from device_placement.agents.placers.base import Placer, PlacerResult
from device_placement.agents.runs.config import SearchConfig
from device_placement.agents.runs.resume import check_resumed_settings
from device_placement.agents.runs.run import Run
from device_placement.agents.runs.summary import finish
from device_placement.envs.errors import DevicePlacementError, choose


def search(config: SearchCommand) -> int:
    """Search with a placer, then print the table; Ctrl-C ends the search early.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or no placement is valid.
    """
    check_resumed_settings(config)
    return run_placer(config, config.placer, placer_of(config))


def search_randomly(config: RandomConfig) -> int:
    """Evaluate random placements until the budget is spent, then print the table.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or no placement is valid.
    """
    check_resumed_settings(config)
    return run_placer(config, "random", make_placer("random"))


def placer_of(config: SearchCommand) -> Placer:
    """Return the placer that the options name.

    Raises:
        DevicePlacementError: when its name is unknown, it does not work with the evaluator, or
            it lacks an option that was given.
    """
    entry = choose("placer", config.placer, PLACERS)
    if entry.needs_costs and config.evaluator == "openvino":
        searching = [name for name, other in PLACERS.items() if not other.needs_costs]
        raise DevicePlacementError(
            f"The placer {config.placer!r} needs simulated costs; add --evaluator simulator, or "
            f"use one of: {', '.join(searching)}."
        )
    own = {field.name for field in dataclasses.fields(entry.load())}
    options: dict[str, object] = {}
    if config.time_limit is not None:
        if "time_limit_s" not in own:
            raise DevicePlacementError(
                f"The placer {config.placer!r} has no time limit; use --budget."
            )
        options["time_limit_s"] = config.time_limit
    if config.start:
        if "start" not in own:
            raise DevicePlacementError(
                f"Got --start {config.start} for the placer {config.placer!r}, which has no start "
                "to choose; local_search and posterior_sampling have one."
            )
        options["start"] = config.start
    if config.profile and config.evaluator == "openvino":
        if "profile" not in own:
            raise DevicePlacementError(
                f"Got --profile {config.profile} for the placer {config.placer!r}, which does not "
                "know costs when placements are measured; posterior_sampling and pretrained do. Or "
                "predict times by it, with --evaluator simulator."
            )
        options["profile"] = config.profile
    return make_placer(config.placer, **options)


def run_placer(config: SearchConfig, name: str, placer: Placer) -> int:
    """Run a placer, record what it evaluates and print the table.

    In a resumed run, placements that were evaluated before cost nothing.

    Args:
        config: the settings.
        name: name of the placer.
        placer: the placer.

    Returns:
        The exit status: 0, or 130 after Ctrl-C.

    Raises:
        DevicePlacementError: when a setting is wrong, or no placement is valid.
    """
    found: PlacerResult | None = None
    with Run(config, name, shows_costs=hasattr(placer, "profile")) as run:
        model = run.models[0]
        with contextlib.suppress(KeyboardInterrupt):
            if config.resume:
                run.rewind()
            model.recorder.evaluate_singles()
            found = placer.place(model.recorder, config.budget, config.seed)
        print(run.summary(interrupted=found is None))
        if found is not None and (proof := describe_proof(found)):
            print(proof)
        if found is not None:
            run.check_valid()
        if found is not None and config.rounds:
            contenders = {"best found": model.recorder.best, name: found.assignment}
            if found.assignment == model.recorder.best or len(set(found.assignment)) < 2:
                del contenders[name]  # it, or a single, has a row already
            rows = {label: list(one) for label, one in contenders.items() if one}
            print(finish(model, rows, bound_s=found.bound_s))
    return 130 if found is None else 0


def describe_proof(found: PlacerResult) -> str:
    """Return a sentence about the bound of a result; empty when it has none.

    >>> describe_proof(PlacerResult((0, 1), 0.002, (), wall_s=1.0, bound_s=0.001))
    'No placement takes less than 1.000 ms; the one found takes 100.00 % more.'
    """
    if math.isnan(found.bound_s):
        return ""
    bound = f"No placement takes less than {1e3 * found.bound_s:.3f} ms"
    if found.proven:
        return f"{bound}; the one found is proven to be the best."
    if not found.assignment:
        return f"{bound}; none was found."
    gap = math.inf if found.bound_s <= 0 else found.time_s / found.bound_s - 1
    return f"{bound}; the one found takes {100 * gap:.2f} % more."
