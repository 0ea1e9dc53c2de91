"""Step 5: measure the best placements again in turns with what OpenVINO does by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_placement.agents.optimizing.as_it_is import AsItIs, entries_as_they_are
from device_placement.envs.evaluation import Evaluation, single_assignments
from device_placement.envs.executors import DATAFLOW, HETERO
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import (
    Contender,
    compare,
    file_name,
    paired_ratio,
    placed,
)
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator
from device_placement.envs.placement import Placement

FINALISTS = 3  # placements that are compared in turns before the winner is confirmed
ROUNDS, SECONDS = 12, 30.0  # samples of each of them, and how long at most
FOUND = "placement found"
BY_HETERO = "the same placement, by HETERO"

OPENVINO = "openvino"  # how: by a device name alone


@dataclass(frozen=True)
class Confirmed:
    """Winner, how it runs, and the times of all that were compared with it in turns."""

    winner: str  # name of the fastest
    how: str  # hetero, dataflow or openvino
    assignment: tuple[int, ...]  # (num_groups,) of a placement; empty otherwise
    device_name: str  # what compile_model takes; unused by dataflow
    uses_file: bool  # whether the file as it is runs, not the normalised model
    evaluations: Mapping[str, Evaluation]  # by name
    # Median ratio of the time of each of the others and the winner's, and its 95 % interval.
    gains: Mapping[str, tuple[float, tuple[float, float]]]
    own_device: str  # what compile_model takes for the fastest of what OpenVINO does by itself
    hetero_name: str = ""  # of the placement
    hetero_wins: bool = False  # whether HETERO with the placement beats all that OpenVINO does

    @property
    def found(self) -> bool:
        """Whether a placement on several devices won."""
        return len(set(self.assignment)) > 1

    @property
    def plain_device(self) -> str:
        """What C++ compiles the model for, with affinities if it is a HETERO name of this project.

        It has no executor ``dataflow``; HETERO runs the placement only if that wins, too.
        """
        if self.how != DATAFLOW:
            return self.device_name
        return self.hetero_name if self.hetero_wins else self.own_device


def confirm(
    evaluator: OpenVINOEvaluator,
    as_it_is: AsItIs,
    candidates: Sequence[tuple[int, ...]],
    rounds: int,
) -> Confirmed:
    """Measure again, and choose: a placement must beat each of the others by more than the noise.

    Args:
        evaluator: of the problem.
        as_it_is: what OpenVINO does by itself.
        candidates: (num_groups,) placements on several devices, the fastest first.
        rounds: samples of each in the last comparison.
    """
    rivals = _rivals(evaluator, as_it_is)
    finalist = _best_of(evaluator, candidates[:FINALISTS])
    if finalist and rounds:
        evaluations = compare(
            evaluator, [*rivals, *_ways(evaluator, finalist)], rounds, max_seconds=2 * SECONDS
        )
        names = [one.name for one in rivals]
        ways = {FOUND: evaluator.executor.name, BY_HETERO: HETERO}
        good = [way for way in ways if _beats_all(evaluations, way, names)]
        if good:
            best = min(good, key=lambda way: evaluations[way].time_s)
            return _confirmed(
                evaluator, as_it_is, best, ways[best], finalist, "", False, evaluations
            )
    else:
        evaluations = {one.name: as_it_is.evaluations[one.name] for one in rivals}
    return own_way(evaluator, as_it_is, evaluations)


def _rivals(evaluator: OpenVINOEvaluator, as_it_is: AsItIs) -> list[Contender]:
    """Return what is compared with the winner: AUTO, HETERO, the best single, the fastest files."""
    listed = {one.name: one for one in entries_as_they_are(evaluator)}
    files = [file_name(device) for device in evaluator.devices if file_name(device) in listed]
    times = {name: as_it_is.evaluations[name].time_s for name in as_it_is.valid}
    best_file = min((one for one in files if one in times), key=times.__getitem__, default="")
    others = [name for name in listed if name not in (*as_it_is.singles, *files)]
    chosen = [as_it_is.best_single, *others, best_file]
    return [listed[name] for name in chosen if name in times]


def _best_of(
    evaluator: OpenVINOEvaluator, candidates: Sequence[tuple[int, ...]]
) -> tuple[int, ...]:
    """Return the candidate that is fastest in turns with the others; empty if none runs."""
    if len(candidates) < 2:
        return tuple(candidates[0]) if candidates else ()
    names = {str(number): one for number, one in enumerate(candidates)}
    listed = [placed(evaluator, name, one) for name, one in names.items()]
    found = compare(evaluator, listed, ROUNDS, max_seconds=SECONDS)
    valid = [name for name, one in found.items() if one.valid]
    best = min(valid, key=lambda name: found[name].time_s, default="")
    return names.get(best, ())


def _ways(evaluator: OpenVINOEvaluator, assignment: tuple[int, ...]) -> list[Contender]:
    """Return the placement under its executor, and under HETERO, which C++ has."""
    ways = [placed(evaluator, FOUND, assignment)]
    if evaluator.executor.name == DATAFLOW:
        placement = Placement.from_groups(evaluator.coarse, evaluator.devices, assignment)
        entry = Entry(placement.hetero_name, bytes(placement.op_devices), executor=HETERO)
        ways.append(Contender(BY_HETERO, entry))
    return ways


def _beats_all(evaluations: Mapping[str, Evaluation], name: str, others: Sequence[str]) -> bool:
    """Return whether one is faster than each of the others that run, by more than the noise."""
    if name not in evaluations or not evaluations[name].valid:
        return False
    return all(
        paired_ratio(evaluations[other], evaluations[name])[1][0] > 1
        for other in others
        if evaluations[other].valid
    )


def own_way(
    evaluator: OpenVINOEvaluator, as_it_is: AsItIs, evaluations: Mapping[str, Evaluation]
) -> Confirmed:
    """Return the fastest of what OpenVINO does by itself; the simplest of those that are equal.

    Args:
        evaluator: of the problem.
        as_it_is: all of it.
        evaluations: of some of it, in turns.
    """
    best = as_it_is.simplest(_own(as_it_is, evaluations), evaluations)
    if best in as_it_is.entries:
        entry = as_it_is.entries[best]
        return _confirmed(
            evaluator,
            as_it_is,
            best,
            OPENVINO,
            (),
            entry.device_name,
            bool(entry.path),
            evaluations,
        )
    assignment = tuple(single_assignments(evaluator)[best])
    device = evaluator.devices[assignment[0]]
    # A device with cores of its own was measured on a thread that is bound to them.
    bound = bool(device.cores) and evaluator.executor.name == DATAFLOW
    how, name = (DATAFLOW, "") if bound else (OPENVINO, device.name)
    return _confirmed(evaluator, as_it_is, best, how, assignment, name, False, evaluations)


def _own(as_it_is: AsItIs, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return the names of what OpenVINO does by itself, of those that ran."""
    return [name for name, one in evaluations.items() if one.valid and name in as_it_is.valid]


def _confirmed(
    evaluator: OpenVINOEvaluator,
    as_it_is: AsItIs,
    winner: str,
    how: str,
    assignment: tuple[int, ...],
    device_name: str,
    uses_file: bool,
    evaluations: Mapping[str, Evaluation],
) -> Confirmed:
    hetero_name = "HETERO:" + ",".join(device.name for device in evaluator.devices)
    gains = {
        name: paired_ratio(one, evaluations[winner])
        for name, one in evaluations.items()
        if name != winner and one.valid
    }
    rivals = [name for name in evaluations if name in as_it_is.evaluations]
    return Confirmed(
        winner,
        how,
        assignment,
        hetero_name if how == HETERO else device_name,
        uses_file,
        evaluations,
        gains,
        own_device=_own_device(evaluator, as_it_is, evaluations),
        hetero_name=hetero_name,
        hetero_wins=how == HETERO or _beats_all(evaluations, BY_HETERO, rivals),
    )


def _own_device(
    evaluator: OpenVINOEvaluator, as_it_is: AsItIs, evaluations: Mapping[str, Evaluation]
) -> str:
    """Return what compile_model takes for the fastest of what OpenVINO does by itself."""
    names = _own(as_it_is, evaluations)
    best = as_it_is.simplest(names, evaluations) if names else ""
    if best in as_it_is.entries:
        return as_it_is.entries[best].device_name
    return evaluator.devices[as_it_is.singles.index(best)].name if best else "AUTO"
