"""Command `dataset`: turn traces and stores into a Parquet table and Minari datasets."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from device_placement.benchmarks.config import DatasetConfig
from device_placement.benchmarks.datasets.minari_files import (
    FOLDER_VARIABLE,
    dataset_name,
    write_dataset,
)
from device_placement.benchmarks.datasets.recorded import (
    Recording,
    Source,
    read_folder,
    read_store,
)
from device_placement.benchmarks.datasets.table import write_table
from device_placement.envs.errors import DevicePlacementError
from device_placement.envs.rendering.text import count

TABLE, MINARI = "evaluations.parquet", "minari"


def dataset(config: DatasetConfig) -> int:
    """Write the table and the datasets, print what they hold, and return the exit status.

    Raises:
        DevicePlacementError: when an option is wrong, nothing was recorded, or the output folder
            exists.
    """
    _check(config)
    out = Path(config.out or Path(config.folders[0]) / "dataset")
    if out.exists():
        raise DevicePlacementError(
            f"The output folder {str(out)!r} exists already; nothing was changed. Give another "
            "--out."
        )
    recordings = [one for folder in config.folders for one in read_folder(Path(folder))]
    if config.store not in (None, "none"):
        models = tuple(filter(None, config.models.split(",")))
        recordings += read_store(None if config.store == "auto" else config.store, models)
    if not any(one.trace for one in recordings):
        raise DevicePlacementError("Nothing was recorded in any of them; give other folders.")
    out.mkdir(parents=True)
    rows = write_table(out / TABLE, recordings)
    print(f"{count(rows, 'evaluation')} of {count(len(recordings), 'run')} in {out / TABLE}")
    names = _write_datasets(config, out / MINARI, recordings)
    if names:
        print(f"Load the datasets with {FOLDER_VARIABLE}={(out / MINARI).absolute()}:")
        print("\n".join(f"  minari.load_dataset({name!r})" for name in names))
    return 0


def _write_datasets(config: DatasetConfig, folder: Path, recordings: list[Recording]) -> list[str]:
    """Write a dataset per source; report on stderr those that can't be opened here."""
    sources: dict[Source, list[Recording]] = {}
    for one in recordings:
        sources.setdefault(one.source, []).append(one)
    names: list[str] = []
    for source, own in sources.items():
        if dataset_name(source) in names:
            print(f"{source.name}: there is a dataset of that name already", file=sys.stderr)
            continue
        try:
            names.append(write_dataset(folder, source, own, config.horizon, config.limit))
        except DevicePlacementError as error:
            print(f"{source.name}: no Minari dataset. {error}", file=sys.stderr)
    return names


def _check(config: DatasetConfig) -> None:
    for package in ("minari", "pyarrow"):
        if importlib.util.find_spec(package) is None:
            raise DevicePlacementError(
                f"A dataset needs {package}: pip install 'device-placement[dataset]'"
            )
    for name in ("horizon", "limit"):
        if getattr(config, name) < 1:
            raise DevicePlacementError(f"Got {name}={getattr(config, name)}; give 1 or more.")
    if not config.folders and not config.out:
        raise DevicePlacementError(
            "Got a store without a folder; say with --out where to write the dataset."
        )
