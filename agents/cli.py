"""Entry point of `device-placement`: a table of commands, each imported when it is called."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from device_placement.agents.output import is_reader_gone, printable_output


@dataclass(frozen=True)
class Command:
    """A command: its options, its function and a line of help."""

    config: str  # MODULE:NAME of the dataclass of its options, light to import
    function: str  # MODULE:NAME; takes an instance and returns the exit status
    summary: str
    # MODULE:NAME; takes the class of the options, --out and the options; returns those to resume
    resume: str = "agents.runs.resume:resume_config"


COMMANDS = {
    "devices": Command(
        "agents.commands.config:DevicesConfig",
        "agents.commands.inspect:show_devices",
        "list the devices of this machine",
    ),
    "inspect": Command(
        "agents.commands.config:InspectConfig",
        "agents.commands.inspect:inspect_model",
        "show a model's ops, groups and sizes",
    ),
    "doctor": Command(
        "agents.commands.config:DoctorConfig",
        "agents.commands.doctor:run_doctor",
        "check whether this machine measures reliably",
    ),
    "profile": Command(
        "agents.commands.config:ProfileConfig",
        "agents.commands.profile:profile_model",
        "measure the costs of a model's ops and transfers",
    ),
    "validate": Command(
        "agents.commands.config:ValidateConfig",
        "agents.commands.validate:validate_file",
        "check the time and the outputs of a saved placement, or of affinities",
    ),
    "optimize": Command(
        "agents.optimizing.config:OptimizeConfig",
        "agents.commands.optimize:optimize_model",
        "make a model faster: verdict, search, proof, and files to run it",
    ),
    "train": Command(
        "agents.commands.config:TrainConfig",
        "agents.commands.train:train",
        "train an agent and keep the best placement it finds",
    ),
    "place": Command(
        "agents.commands.config:PlaceConfig",
        "agents.commands.place:place",
        "place a model at once with a trained policy, as it is or fine-tuned",
    ),
    "pretrain": Command(
        "agents.commands.config:PretrainConfig",
        "agents.commands.pretrain:pretrain",
        "train the policy that `place` and the placer pretrained use",
        resume="agents.pretraining.trainer:resume_config",
    ),
    "search": Command(
        "agents.commands.config:SearchCommand",
        "agents.commands.search:search",
        "search with a classical or exact placer and keep the best placement",
    ),
    "random": Command(
        "agents.commands.config:RandomConfig",
        "agents.commands.search:search_randomly",
        "evaluate random placements and keep the best",
    ),
    "benchmark": Command(
        "benchmarks.config:BenchmarkConfig",
        "benchmarks.runner:benchmark",
        "compare placers, presets and your own algorithm on suites of problems",
    ),
    "replay": Command(
        "benchmarks.config:ReplayConfig",
        "benchmarks.suite.replay:replay",
        "measure the best placements of a benchmark again",
    ),
    "dataset": Command(
        "benchmarks.config:DatasetConfig",
        "benchmarks.datasets.command:dataset",
        "write evaluated placements as a Parquet table and Minari datasets",
    ),
    "report": Command(
        "benchmarks.config:ReportConfig",
        "benchmarks.report.html:report",
        "write a benchmark as one HTML file with figures",
    ),
    "paper-tables": Command(
        "benchmarks.config:PaperTablesConfig",
        "benchmarks.report.paper_tables:paper_tables",
        "compare a benchmark with the tables of the HSDAG paper",
    ),
    "cluster": Command(
        "agents.commands.config:ClusterConfig",
        "agents.commands.cluster:start_cluster",
        "start the scheduler of a cluster, for the option --on",
    ),
    "worker": Command(
        "agents.commands.config:WorkerConfig",
        "agents.commands.worker:start_worker",
        "measure and run benchmarks on this machine for a cluster",
    ),
    "scores": Command(
        "benchmarks.config:ScoresConfig",
        "benchmarks.report.tables:show_scores",
        "show the score tables of benchmarks",
    ),
}


MAX_MESSAGE = 10_000  # characters
READER_GONE = 141  # the status that shells report for SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, as `exit_status` does."""
    return exit_status("device-placement", lambda: _main(arguments))


def exit_status(program: str, command: Callable[[], int]) -> int:
    """Run a command of a program and print an error as one line.

    Returns:
        The exit status: the command's own, 1 when the system fails (a full disk, too little
        memory), 2 for a wrong input, 130 after Ctrl-C, 141 when the reader of the output, such as
        ``head``, has closed it.
    """
    try:
        try:
            return command()
        except ValueError as error:
            from device_placement.envs.errors import DevicePlacementError, printable

            if not isinstance(error, DevicePlacementError):
                raise
            print(f"{program}: {printable(str(error), MAX_MESSAGE)}", file=sys.stderr)
            return 2
        except OSError as error:
            if is_reader_gone(error):
                raise
            return _fails(program, f"{error}; what was written before is kept.")
        except MemoryError as error:
            return _fails(program, f"There is too little memory. {error}".strip())
        except KeyboardInterrupt:
            print(f"{program}: interrupted.", file=sys.stderr)
            return 130
        finally:
            if sys.stdout:  # None where it was closed
                sys.stdout.flush()
    except OSError as error:  # of this process; workers handle their own
        if not is_reader_gone(error):
            return _fails(program, f"{error}; what was written before is kept.")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the rest of the output
        return READER_GONE


def _fails(program: str, reason: str) -> int:
    from device_placement.envs.errors import printable

    print(f"{program}: {printable(reason, MAX_MESSAGE)}", file=sys.stderr)
    return 1


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(_version())
        return 0
    from device_placement.agents.training.malloc import keep_freed_memory
    from device_placement.envs.errors import choose

    if arguments is None:  # the process runs nothing else
        keep_freed_memory()
    return _run(choose("command", words[0], COMMANDS), words[0], words[1:])


def _run(command: Command, name: str, words: Sequence[str]) -> int:
    from device_placement.agents.options import name_as_options, options_of, parse
    from device_placement.envs.errors import DevicePlacementError

    config_class = _load(command.config)
    program, description = f"device-placement {name}", f"{command.summary.capitalize()}."
    config = parse(config_class, words, program, description)
    if getattr(config, "resume", False):
        # Options that are not given stay as they were.
        saved = _load(command.resume)(config_class, config.out, trusted=config)
        config = parse(config_class, words, program, description, default=saved)
    try:
        with our_warnings(), printable_output():
            return int(_load(command.function)(config))
    except DevicePlacementError as error:
        error.args = (name_as_options(str(error), options_of(config_class)),)
        raise


@contextlib.contextmanager
def our_warnings() -> Iterator[None]:
    """Print this package's warnings as a line, like its errors, instead of with their origin."""
    from device_placement.envs.errors import DevicePlacementWarning, printable

    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, DevicePlacementWarning):
            print(f"device-placement: {printable(str(message))}", file=sys.stderr)
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def _load(place: str) -> Any:
    """Import ``MODULE:NAME``."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(f"device_placement.{module}"), name)


def _help() -> str:
    rows = [f"  {name:<13}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: device-placement COMMAND [OPTIONS]",
            "",
            "Which device should run which part of a neural network, so that it finishes soonest?",
            "",
            "commands:",
            *rows,
            "",
            "device-placement COMMAND --help lists options; --version prints the version.",
        ]
    )


def _version() -> str:
    from importlib.metadata import version

    return f"device-placement {version('device-placement')}"


if __name__ == "__main__":
    sys.exit(main())
