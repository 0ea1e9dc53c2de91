"""Parquet table of evaluated placements, a row each."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from device_placement.benchmarks.datasets.recorded import Recording
from device_placement.envs.devices import parse_devices

COLUMNS = {
    "model": "what `load_model` takes; of a store's unknown model, its hash",
    "machine": "the simulated machine, or the processor that measured",
    "placement": "a device number per group, or per op where `per` says so",
    "time_s": "seconds per inference; null: invalid",
    "interval_low_s": "lower end of the 95 % interval of the time",
    "interval_high_s": "its upper end",
    "devices": "the devices by number, with properties",
    "per": "group or op",
    "evaluator": "simulator or openvino",
    "schedule": "of the simulator, or the executor that was asked for",
    "error": "why the placement is invalid; empty: it is valid",
    "num_subgraphs": "pieces that are compiled and run separately",
    "search": "the placer or preset that asked for it, or store",
    "seed": "of the search",
    "number": "of the evaluation in its run, from 0",
}
"""Name of each column -> what it holds."""


def write_table(path: Path, recordings: Iterable[Recording]) -> int:
    """Write the evaluations of some recordings as a Parquet file, and return how many."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        "placement": pa.list_(pa.int16()),
        "devices": pa.list_(pa.string()),
        **dict.fromkeys(("time_s", "interval_low_s", "interval_high_s"), pa.float64()),
        **dict.fromkeys(("num_subgraphs", "seed", "number"), pa.int64()),
    }
    schema = pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])
    number = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for recording in recordings:
            rows = _rows(recording)
            number += len(rows)
            writer.write_table(pa.Table.from_pylist(rows, schema))
    return number


def _rows(recording: Recording) -> list[dict[str, Any]]:
    source = recording.source
    names = [source.devices]
    if source.devices != "auto":
        names = [str(device) for device in parse_devices(source.devices)]
    fixed = {
        "model": source.model,
        "machine": source.machine,
        "devices": names,
        "per": source.per,
        "evaluator": source.evaluator,
        "schedule": source.schedule,
        "search": recording.search,
        "seed": recording.seed,
    }
    return [
        {
            **fixed,
            "placement": list(placement),
            "time_s": one.time_s if one.valid else None,
            "interval_low_s": one.interval_s[0] if one.valid else None,
            "interval_high_s": one.interval_s[1] if one.valid else None,
            "error": one.error,
            "num_subgraphs": one.num_subgraphs,
            "number": number,
        }
        for number, (placement, one) in enumerate(recording.trace.items())
    ]
