"""Options of `benchmark`, `replay`, `dataset` and the reports; light, so ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from device_placement.agents.options import POSITIONAL, OptionGroups
from device_placement.envs.measuring.config import MeasureConfig

ALL = "all"


@dataclass(frozen=True)
class BenchmarkConfig(MeasureConfig):
    """Options of `device-placement benchmark`."""

    executor: str = "auto"
    """auto (dataflow if devices can run side by side), hetero (OpenVINO's HETERO, which runs the
    subgraphs of a request in turn) or dataflow (regions run side by side, each when its inputs
    exist)."""
    suite: str = "quick"
    """Suites, comma-separated: paper, hard, local, local_accuracy, local_parallel, workloads,
    scale, mcm, quick, or a TOML file of your own."""
    problems: tuple[str, ...] = ()
    """Names of problems, each in quotes; default: all of the suites."""
    placers: str = ALL
    """Placers, presets and your own MODULE:FUNCTION, comma-separated; all: every bundled one that
    applies."""
    seeds: int = 5
    """Runs per placer and problem, with seeds 0, 1, ...; deterministic placers run once."""
    jobs: int = 1
    """Parallel runs, each on one core (cp_sat on all); measurements take turns. With --on, the
    workers decide."""
    budget: int | None = None
    """Distinct placements per run, including those on a single device; default: the suite's."""
    devices: str = ""
    """Devices for the suite local; default: every one found."""
    data: str = ""
    """Folder with the files of the suite workloads."""
    run_limit_s: float | None = None
    """Stop a run after this many seconds and count it as failed; default: never."""
    retry_failed: bool = False
    """Repeat the failed runs in --out."""
    out: str = ""
    """Output folder; an unfinished benchmark in it is resumed. Default: a new one under runs/."""


@dataclass(frozen=True)
class ReplayConfig:
    """Options of `device-placement replay`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {
        POSITIONAL: ("folder",),
        "cluster": ("on", "target", "tls_ca_file", "tls_cert", "tls_key"),
    }

    folder: str
    """Folder of a benchmark."""
    submission: bool = False
    """First check the folder against the rules of the leaderboard: problems, budget, seeds,
    versions, traces and the algorithm's file."""
    rounds: int = 30
    """Samples of the placement and of the best single device, alternating."""
    devices: str = ""
    """The devices of the problems, repeated; needed only where they have properties that a file
    may not set, such as CACHE_DIR."""
    on: str = ""
    """Measure on the targets of a cluster: the address of its scheduler, or its scheduler file;
    default: on this machine."""
    target: str = ""
    """Names of targets of the cluster, comma-separated; default: all, if they are alike."""
    tls_ca_file: str = ""
    """For a cluster with TLS: file of the certificate authority (PEM)."""
    tls_cert: str = ""
    """The same: file of the own certificate (PEM)."""
    tls_key: str = ""
    """The same: file of the own private key (PEM)."""


@dataclass(frozen=True)
class DatasetConfig:
    """Options of `device-placement dataset`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folders",)}

    folders: tuple[str, ...] = ()
    """Folders of benchmarks, trainings and searches."""
    out: str = ""
    """Folder to write, which must not exist yet; default: dataset in the first folder."""
    store: str | None = None
    """Store of measurements to add: a file, or auto for the user's; default: none."""
    models: str = ""
    """Models of the store's measurements, comma-separated, so that they become Minari datasets
    too."""
    horizon: int = 20
    """Steps of an episode."""
    limit: int = 1000
    """Evaluations of each run that Minari datasets hold, the first ones; the table has all."""


@dataclass(frozen=True)
class ReportConfig:
    """Options of `device-placement report`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folder",)}

    folder: str
    """Folder of a benchmark."""
    out: str = ""
    """HTML file to write; default: report.html in the folder."""


@dataclass(frozen=True)
class PaperTablesConfig:
    """Options of `device-placement paper-tables`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folders",)}

    folders: tuple[str, ...]
    """Folders of replayed benchmarks of the suite paper, including the variants of hsdag."""
    out: str = ""
    """Folder for Markdown and CSV files; default: only print the tables."""


@dataclass(frozen=True)
class ScoresConfig:
    """Options of `device-placement scores`."""

    OPTION_GROUPS: ClassVar[OptionGroups] = {POSITIONAL: ("folders",)}

    folders: tuple[str, ...]
    """Folders of benchmarks."""
    readme: str = ""
    """Markdown file whose score table to replace, between its two marks; uses replayed runs of
    simulated suites only."""
