"""Entry point of `device-placement`: a table of subcommands, each imported when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Command:
    """Where a command lives and what it is for."""

    module: str
    config: str  # the dataclass that the command line becomes
    function: str  # takes it, returns the exit status
    summary: str


COMMANDS = {
    "devices": Command(
        "device_placement.agents.commands.inspect",
        "DevicesConfig",
        "show_devices",
        "list the devices of this machine",
    ),
    "inspect": Command(
        "device_placement.agents.commands.inspect",
        "InspectConfig",
        "inspect_model",
        "show a model's ops, groups and sizes",
    ),
    "doctor": Command(
        "device_placement.agents.commands.doctor",
        "DoctorConfig",
        "run_doctor",
        "tell whether this machine can be trusted to measure",
    ),
    "profile": Command(
        "device_placement.agents.commands.profile",
        "ProfileConfig",
        "profile_model",
        "measure what a model's ops and transfers cost here",
    ),
    "validate": Command(
        "device_placement.agents.commands.validate",
        "ValidateConfig",
        "validate_file",
        "measure a saved placement again and check its outputs",
    ),
    "train": Command(
        "device_placement.agents.commands.train",
        "TrainConfig",
        "train",
        "train an agent and keep the best placement it finds",
    ),
    "place": Command(
        "device_placement.agents.commands.place",
        "PlaceConfig",
        "place",
        "place a model with a trained policy, at once or fine-tuned",
    ),
    "search": Command(
        "device_placement.agents.commands.search",
        "SearchCommand",
        "search",
        "search with a classical or exact placer and keep the best placement",
    ),
    "random": Command(
        "device_placement.agents.commands.search",
        "RandomConfig",
        "search_randomly",
        "evaluate random placements and keep the best",
    ),
    "benchmark": Command(
        "device_placement.benchmarks.runner",
        "BenchmarkConfig",
        "benchmark",
        "compare placers, presets and your own algorithm on suites of problems",
    ),
    "replay": Command(
        "device_placement.benchmarks.suite.replay",
        "ReplayConfig",
        "replay",
        "measure the winning placements of a benchmark again",
    ),
    "report": Command(
        "device_placement.benchmarks.report.html",
        "ReportConfig",
        "report",
        "write a benchmark as one HTML file with figures",
    ),
    "paper-tables": Command(
        "device_placement.benchmarks.report.paper_tables",
        "PaperTablesConfig",
        "paper_tables",
        "show the tables of HSDAG's paper beside ours",
    ),
    "scores": Command(
        "device_placement.benchmarks.report.tables",
        "ScoresConfig",
        "show_scores",
        "show the tables of benchmarks that were run",
    ),
}


READER_GONE = 141  # what a shell calls the end by SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, as `exit_status` does."""
    return exit_status("device-placement", lambda: _main(arguments))


def exit_status(program: str, command: Callable[[], int]) -> int:
    """Run a command of a program, and print its errors as one line each.

    Returns:
        The exit status: that of the command, 2 for a wrong input, 130 after Ctrl-C, 141 when who
        reads the output has gone, as ``head`` does.
    """
    try:
        try:
            return command()
        except ValueError as error:
            from device_placement.envs.errors import DevicePlacementError

            if not isinstance(error, DevicePlacementError):
                raise
            print(f"{program}: {error}", file=sys.stderr)
            return 2
        except KeyboardInterrupt:
            print(f"{program}: interrupted.", file=sys.stderr)
            return 130
        finally:
            if sys.stdout:  # there is none where it was closed
                sys.stdout.flush()
    except BrokenPipeError:  # those of the workers are seen to where they are
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left
        return READER_GONE


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

    if arguments is None:  # the process is this command's alone
        keep_freed_memory()
    return _run(choose("command", words[0], COMMANDS), words[0], words[1:])


def _run(command: Command, name: str, words: Sequence[str]) -> int:
    import tyro

    module = importlib.import_module(command.module)
    kind = getattr(module, command.config)

    def parse(**default: Any) -> Any:
        return tyro.cli(
            kind,
            args=list(words),
            prog=f"device-placement {name}",
            description=command.summary.capitalize() + ".",
            **default,
        )

    config = parse()
    if getattr(config, "resume", None) and name != "benchmark":
        from device_placement.agents.runs.config import resume_config

        config = parse(default=resume_config(kind, config.out))  # what is not given stays as it was
    return int(getattr(module, command.function)(config))


def _help() -> str:
    rows = [f"  {name:<13}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: device-placement COMMAND [OPTION ...]",
            "",
            "Which device should run which part of a neural network, so that it finishes soonest?",
            "",
            "commands:",
            *rows,
            "",
            "device-placement COMMAND --help tells the options of one; --version the version.",
        ]
    )


def _version() -> str:
    from importlib.metadata import version

    return f"device-placement {version('device-placement')}"


if __name__ == "__main__":
    sys.exit(main())
