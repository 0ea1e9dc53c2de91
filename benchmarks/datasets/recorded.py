"""Recorded evaluations: read them from benchmarks, runs and stores, with what they depend on."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from device_placement.agents.runs.config import SearchConfig
from device_placement.agents.runs.recording import read_entry
from device_placement.agents.runs.resume import CONFIG, unusual_settings
from device_placement.agents.runs.run import evaluator_of, short_names
from device_placement.benchmarks.suite.folder import check_problem, read_measuring, read_sessions
from device_placement.benchmarks.suite.problems import open_problem
from device_placement.benchmarks.suite.random_graphs import PREFIX
from device_placement.benchmarks.suite.results import ROWS, RunRow, latest, read_rows
from device_placement.benchmarks.suite.row_checks import UNREADABLE, read_trace
from device_placement.benchmarks.suite.suites import MEASURED, SIMULATED, Problem
from device_placement.benchmarks.suite.task import find_traces
from device_placement.envs.devices import Device, parse_devices
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.evaluation import BaseEvaluator, Evaluation, Evaluator
from device_placement.envs.graph.coarsening import CoarseGraph, coarsen
from device_placement.envs.graph.computation_graph import read_graph
from device_placement.envs.measuring.config import MeasureConfig
from device_placement.envs.measuring.estimate import evaluate_measurements
from device_placement.envs.measuring.store import EvaluationStore
from device_placement.envs.measuring.timing import median_interval
from device_placement.envs.models.loading import load_model, model_hash, parse_input_shapes
from device_placement.envs.problems.seeds import is_generated
from device_placement.envs.simulation.workloads import is_workload
from device_placement.envs.untrusted import check_types, read_json, reading

LOG = "evaluations.jsonl"  # of a run
NOT_IN_REFERENCE = ("devices", "timing", "groups")  # keys of a store's problem
GROUP, OP = "group", "op"
Trace = Mapping[tuple[int, ...], Evaluation]


@dataclass(frozen=True)
class Source:
    """What recorded times depend on, apart from the placement."""

    name: str
    """Of the dataset: the problem's, or the model's."""
    model: str
    """What `load_model` takes; of a store's unknown model, its hash."""
    machine: str
    """The simulated machine, or the processor that measured."""
    evaluator: str
    """simulator or openvino."""
    schedule: str
    """Of the simulator, or the executor that was asked for."""
    devices: str
    """As `parse_devices` takes them."""
    open: Callable[[], Evaluator] | None = field(default=None, compare=False)
    """Makes the evaluator, for the graph; None if the model is not known."""
    arguments: Mapping[str, Any] | None = field(default=None, compare=False)
    """Of the simulated environment, where arguments can express it."""
    per: str = GROUP
    """Whether a placement has a device per group or per op."""


@dataclass(frozen=True)
class Recording:
    """Evaluations of one run, in their order."""

    source: Source
    search: str
    seed: int
    trace: Trace


class RecordedEvaluator(BaseEvaluator):
    """Evaluator that returns what was recorded, and measures nothing.

    Args:
        coarse: the groups that were placed.
        devices: of the placements.
        reference: number of the reference device.
        trace: the evaluations.
        simulator: of placements that were not recorded; None: they are invalid.
    """

    def __init__(
        self,
        coarse: CoarseGraph,
        devices: tuple[Device, ...],
        reference: int,
        trace: Trace,
        simulator: Evaluator | None = None,
    ) -> None:
        self.coarse, self.devices, self.reference = coarse, devices, reference
        self._trace, self._simulator = trace, simulator

    @classmethod
    def of(cls, evaluator: Evaluator, trace: Trace) -> RecordedEvaluator:
        """Return one with the groups of another evaluator."""
        simulator = None if evaluator.measures else evaluator
        return cls(evaluator.coarse, evaluator.devices, evaluator.reference, trace, simulator)

    def evaluate(self, assignment: Sequence[int]) -> Evaluation:
        """Return the recorded evaluation of (num_groups,) device numbers."""
        key = tuple(int(device) for device in assignment)
        if key in self._trace:
            return self._trace[key]
        if self._simulator is not None:
            return self._simulator.evaluate(key)
        return Evaluation.invalid("This placement was not recorded.")


def read_folder(folder: Path) -> Iterator[Recording]:
    """Yield what a folder of a benchmark or of a run recorded.

    Raises:
        DevicePlacementError: when it is neither, or has no traces.
    """
    if (folder / ROWS).is_file():
        yield from _read_benchmark(folder)
    elif (folder / CONFIG).is_file():
        yield from _read_run(folder)
    else:
        raise DevicePlacementError(
            f"There is neither a benchmark ({ROWS}) nor a run ({CONFIG}) in {str(folder)!r}; give "
            "the --out of one."
        )


def _read_benchmark(folder: Path) -> Iterator[Recording]:
    rows = [row for row in latest(read_rows(str(folder / ROWS))) if not row.failure]
    traces = find_traces(folder, [row.key for row in rows])
    if not traces:
        raise DevicePlacementError(
            f"The benchmark in {str(folder)!r} has no traces; give its folder as the command left "
            "it."
        )
    sessions, measuring = read_sessions(folder), read_measuring(folder)
    sources: dict[tuple[str, str, str], Source] = {}
    for row in rows:
        if row.key not in traces:
            continue
        if row.session >= len(sessions):
            raise DevicePlacementError(
                f"A row of {str(folder)!r} is of call {row.session}, which benchmark.json lacks; "
                "give the folder as the benchmark left it."
            )
        key = row.suite, row.problem, row.devices
        if key not in sources:
            sources[key] = _source_of_row(row, sessions[row.session], measuring, folder)
        with reading(traces[row.key], "a trace", "give the folder as the benchmark left it."):
            trace = read_trace(traces[row.key], row.evaluations)
        yield Recording(sources[key], row.placer, row.seed, trace)


def _source_of_row(
    row: RunRow, session: Mapping[str, Any], measuring: MeasureConfig, folder: Path
) -> Source:
    fields = next(
        (one for suite, name, one in session["problems"] if (suite, name) == row.key[:2]), None
    )
    if fields is None:
        raise DevicePlacementError(
            f"There is no problem {row.problem!r} of the suite {row.suite!r} in benchmark.json; "
            "give the folder as the benchmark left it."
        )
    problem = Problem(**fields)
    check_problem(problem, folder)
    if problem.evaluator == MEASURED:
        problem = dataclasses.replace(problem, devices=row.devices, share=None)
    config = dataclasses.replace(measuring, store=None)
    simulated = problem.evaluator != MEASURED
    return Source(
        name=f"{row.suite} {row.problem}",
        model=problem.model,
        machine=_simulated_machine(problem) if simulated else _processor(session["machine"]),
        evaluator=problem.evaluator,
        schedule=problem.schedule if simulated else measuring.executor,
        devices=row.devices,
        open=lambda: open_problem(problem, config),
        arguments=_arguments(problem, row.devices) if simulated else None,
    )


def _arguments(problem: Problem, devices: str) -> dict[str, Any] | None:
    if problem.chips or problem.model.startswith(PREFIX):
        return None
    own = is_generated(problem.model) or is_workload(problem.model)
    given = {
        "model": problem.model,
        "devices": devices,
        "schedule": problem.schedule,
        "hardware": "" if own else problem.hardware or "desktop",
        "max_groups": problem.max_groups,
        "input_shapes": parse_input_shapes(problem.input_shapes),
    }
    return {name: value for name, value in given.items() if value}


def _simulated_machine(problem: Problem) -> str:
    own = is_generated(problem.model) or is_workload(problem.model)
    return problem.model if own else problem.hardware or "desktop"


def _processor(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores"


def _read_run(folder: Path) -> Iterator[Recording]:
    path = folder / CONFIG
    with reading(path, "the settings of a run", "give the --out of train or search."):
        content = read_json(path)
        settings = dict(content["settings"])
        names = {one.name for one in dataclasses.fields(SearchConfig)}
        chosen = {name: settings[name] for name in names}
        check_types("setting", chosen, SearchConfig)
        machine = dict(content["machine"])
        search = str(settings.get("preset") or settings.get("placer") or "random")
        if unusual := unusual_settings(chosen | {"store": "none"}, str(path)):
            raise DevicePlacementError(f"it sets {', '.join(unusual)}, which a file may not.")
    known = Path(settings["model"]).exists() or "," not in settings["model"]
    models = [settings["model"]] if known else settings["model"].split(",")
    for model, name in zip(models, short_names(models), strict=True):
        config = SearchConfig(
            **{**chosen, "model": model, "store": "none", "out": "", "resume": False, "inputs": ""}
        )
        log = folder / LOG if len(models) == 1 else folder / name / LOG
        trace = _read_log(log)
        yield Recording(_source_of_run(config, name, machine), search, config.seed, trace)


def _source_of_run(config: SearchConfig, name: str, machine: Mapping[str, Any]) -> Source:
    simulated = config.evaluator == SIMULATED
    hardware = config.hardware or ("" if config.profile else "desktop")
    arguments = {
        "model": config.model,
        "devices": config.devices,
        "coarsening": config.coarsening,
        "max_groups": config.max_groups,
        "input_shapes": parse_input_shapes(config.input_shapes),
        "hardware": hardware,
        "schedule": config.schedule,
        "constraints": config.constraints,
    }
    given = {key: value for key, value in arguments.items() if value}
    plain = simulated and not config.profile and not is_generated(config.model)
    return Source(
        name=f"{name} {config.devices}",
        model=config.model,
        machine=(hardware or "profile") if simulated else _processor(machine),
        evaluator=config.evaluator,
        schedule=(config.schedule or "sequential") if simulated else config.executor,
        devices=config.devices,
        open=lambda: evaluator_of(config),
        arguments=given if plain else None,
    )


def _read_log(log: Path) -> dict[tuple[int, ...], Evaluation]:
    """Read the evaluations of a run; of one that was repeated, the last counts."""
    found: dict[tuple[int, ...], Evaluation] = {}
    opened = gzip.open if log.suffix == ".gz" else open
    try:
        with opened(log, "rb") as file:
            for line in file:
                if line.endswith(b"\n"):  # an interrupted run leaves half a line
                    _, key, evaluation = read_entry(line)
                    found[key] = evaluation
    except UNREADABLE as error:
        raise DevicePlacementError(
            f"Can't read {str(log)!r} as evaluations ({type(error).__name__}: {error}); give the "
            "--out of train or search."
        ) from error
    return found


def read_store(path: str | None, models: Sequence[str] = ()) -> Iterator[Recording]:
    """Yield what a store holds, a recording per problem.

    Args:
        path: of the store; None: the user's.
        models: what `load_model` takes; known by their hashes. Others have no graph.
    """
    store = EvaluationStore(path)
    hashes = {model_hash(loaded): (name, loaded) for name, loaded in _loaded(models)}
    for problem, entries in itertools.groupby(store.entries(), key=lambda entry: entry[0]):
        reference = {k: v for k, v in problem.items() if k not in NOT_IN_REFERENCE}
        samples = store.get_reference(reference)
        if samples is None:
            continue
        reference_s = statistics.median(samples)
        trace: dict[tuple[int, ...], Evaluation] = {}
        for _, op_devices, measurements in entries:
            if not trace:  # the reference's single is not among the measurements
                single = (_reference(problem),) * len(op_devices)
                trace[single] = Evaluation(reference_s, samples, median_interval(samples))
            found = evaluate_measurements(measurements, reference_s, MeasureConfig())
            if found is not None:
                trace[tuple(op_devices)] = found
        if trace:
            yield Recording(_source_in_store(problem, hashes), "store", 0, trace)


def _loaded(models: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for name in models:
        yield name, load_model(name)


def _reference(problem: Mapping[str, Any]) -> int:
    """Return the number of the reference device of a store's problem."""
    return [one["device"] for one in problem["devices"]].index(problem["device"]["device"])


def _source_in_store(problem: Mapping[str, Any], hashes: Mapping[str, tuple[str, Any]]) -> Source:
    devices = ",".join(one["device"] for one in problem["devices"])
    parsed = parse_devices(devices)
    name, loaded = hashes.get(problem["model_hash"], (problem["model_hash"], None))

    def opened() -> Evaluator:
        # Each op by itself: any placement of a store fits, however it was grouped.
        coarse = coarsen(read_graph(loaded, parsed, simulated=True), "none")
        return RecordedEvaluator(coarse, parsed, _reference(problem), {})

    return Source(
        name=f"{Path(name).stem} {devices} store",
        model=name,
        machine=_processor(problem["host"]),
        evaluator=MEASURED,
        schedule=problem.get("executor", "hetero"),
        devices=devices,
        open=None if loaded is None else opened,
        per=OP,
    )


def by_group(recording: Recording, coarse: CoarseGraph) -> dict[tuple[int, ...], Evaluation]:
    """Return a recording's evaluations with a device per group; those that fit no groups are left.

    Args:
        recording: with placements per group or per op.
        coarse: the groups.
    """
    found: dict[tuple[int, ...], Evaluation] = {}
    for key, evaluation in recording.trace.items():
        placement = np.asarray(key)
        if recording.source.per == OP:
            if len(placement) != len(coarse.op_group):
                continue
            groups = np.zeros(coarse.num_groups, dtype=np.int64)
            plain = ~coarse.graph.is_constant
            groups[coarse.op_group[plain]] = placement[plain]
            placement = groups
        if len(placement) == coarse.num_groups:
            found[tuple(placement.tolist())] = evaluation
    return found
