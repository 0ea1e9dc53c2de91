"""Step 1: what OpenVINO does by itself with a model: its file, AUTO, HETERO and the singles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import Evaluation, single_assignments
from device_placement.envs.measuring.bench import Entry
from device_placement.envs.measuring.compare import (
    Contender,
    compare,
    contenders,
    paired_ratio,
)
from device_placement.envs.measuring.openvino_evaluator import OpenVINOEvaluator

FILE_BY_AUTO = "file as it is, by OpenVINO AUTO"
MORE = 10  # effort of devices with cores of their own
ROUNDS, SECONDS = 15, 20.0  # samples of each, and how long at most


@dataclass(frozen=True)
class AsItIs:
    """Times of what needs no placement, measured in turns."""

    entries: Mapping[str, Entry]  # of all but the singles, by name
    evaluations: Mapping[str, Evaluation]  # of all, by name
    singles: tuple[str, ...]  # (num_devices,) names
    owners: frozenset[str] = frozenset()  # names of devices and singles that own some cores only

    @property
    def best(self) -> str:
        """Name of the fastest."""
        return min(self.valid, key=lambda name: self.evaluations[name].time_s)

    @property
    def best_single(self) -> str:
        """Name of the fastest single; empty if none runs, which `measure_as_is` refuses."""
        valid = [name for name in self.singles if name in self.valid]
        return min(valid, key=lambda name: self.evaluations[name].time_s, default="")

    @property
    def valid(self) -> tuple[str, ...]:
        """Names of those that run."""
        return tuple(name for name, one in self.evaluations.items() if one.valid)

    def simplest(self, names: Sequence[str], evaluations: Mapping[str, Evaluation]) -> str:
        """Return the simplest of some ways that are as fast as the fastest of them, but for noise.

        A file on a device is simpler than a single, that than AUTO's choice, that than HETERO's;
        whatever needs devices with cores of their own is less simple.

        Args:
            names: of the ways, at least one.
            evaluations: of these, in turns.
        """
        fastest = min(names, key=lambda name: evaluations[name].time_s)
        equal = [
            name
            for name in names
            if paired_ratio(evaluations[name], evaluations[fastest])[1][0] <= 1
        ]
        return min(equal or [fastest], key=self._effort)

    def _effort(self, name: str) -> tuple[int, float]:
        """Return a number that is larger the less simple a way is, then its time."""
        entry = self.entries.get(name)
        rank = 1
        if entry is not None:
            chooser = entry.device_name.partition(":")[0]
            rank = 2 * ("AUTO", "HETERO").index(chooser) + 2 if ":" in entry.device_name else 0
            rank += 0 if entry.path else 1
        devices = [name] if entry is None else entry.device_name.replace(":", ",").split(",")
        rank += MORE * bool(self.owners.intersection(devices))
        return rank, self.evaluations[name].time_s

    @property
    def recommended(self) -> str:
        """Name of the simplest of the fastest."""
        return self.simplest(self.valid, self.evaluations)

    def relative(self, name: str, to: str) -> float:
        """Return the time of one over that of another, from their common rounds."""
        return paired_ratio(self.evaluations[name], self.evaluations[to])[0]


def entries_as_they_are(evaluator: OpenVINOEvaluator) -> list[Contender]:
    """Return the singles, OpenVINO's automatic choices, and the model's file in every way."""
    found = contenders(evaluator, {})
    own = len(evaluator.devices) + 2  # whole models on devices of their own are placements
    automatic = found[len(evaluator.devices) : own]
    files = [one for one in found[own:] if one.entry is not None and one.entry.path]
    if evaluator.file:
        entry = automatic[1].entry
        assert entry is not None
        files.append(Contender(FILE_BY_AUTO, Entry(entry.device_name, path=evaluator.file)))
    return [*found[: len(evaluator.devices)], *automatic, *files]


def measure_as_is(evaluator: OpenVINOEvaluator) -> AsItIs:
    """Measure the model as it is on each device, by AUTO and HETERO, and each single, in turns.

    With a limit on the outputs' error, a single whose outputs are further off is invalid, and so
    is the file on that device. What AUTO and HETERO choose is then left out unless every single is
    within the limit.

    Raises:
        DevicePlacementError: when no single runs, with the reasons.
    """
    listed = entries_as_they_are(evaluator)
    evaluations = compare(evaluator, listed, ROUNDS, max_seconds=SECONDS)
    singles = tuple(single_assignments(evaluator))
    evaluations |= _too_far_off(evaluator, listed, singles)
    entries = {
        one.name: one.entry for one in listed if one.entry is not None and one.name not in singles
    }
    found = AsItIs(entries, evaluations, singles, owners_of(evaluator))
    if not found.best_single:
        reasons = "; ".join(f"{name}: {evaluations[name].error}" for name in singles)
        raise DevicePlacementError(
            f"No device runs all of {evaluator.coarse.graph.name!r}, which placements are compared "
            f"with: {reasons} Add a device that does, such as CPU."
        )
    return found


def owners_of(evaluator: OpenVINOEvaluator) -> frozenset[str]:
    """Return the names of devices that own cores, and of their singles."""
    names = zip(evaluator.devices, single_assignments(evaluator), strict=True)
    return frozenset(
        one for device, single in names if device.cores for one in (device.name, single)
    )


def _too_far_off(
    evaluator: OpenVINOEvaluator, listed: list[Contender], singles: tuple[str, ...]
) -> dict[str, Evaluation]:
    """Return invalid evaluations of what is outside the limit on the outputs' error."""
    if evaluator.config.max_output_error is None:
        return {}
    assignments = single_assignments(evaluator)
    known = {name: evaluator.evaluate(assignments[name]) for name in singles}
    refused = {name: one for name, one in known.items() if not one.valid}
    devices = dict(zip([one.name for one in evaluator.devices], singles, strict=True))
    for one in listed:
        if not refused or one.entry is None or one.name in singles:
            continue
        single = devices.get(one.entry.device_name)
        if single in refused:
            refused[one.name] = refused[single]
        elif single is None:
            refused[one.name] = Evaluation.invalid(
                "it may choose a device whose outputs are too far off"
            )
    return refused
