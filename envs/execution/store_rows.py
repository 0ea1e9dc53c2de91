"""The rows of the store: what a measurement is there, and whether it is what was written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from device_placement.envs.execution.evaluation import NAN, Measurement

COLUMNS = tuple(field.name for field in dataclasses.fields(Measurement))


def to_row(measurement: Measurement) -> dict[str, Any]:
    """The columns of a measurement: NaN is null, a bool 0 or 1, pairs are JSON."""
    row = {name: _null(getattr(measurement, name)) for name in COLUMNS}
    flags = {name: int(value) for name, value in row.items() if isinstance(value, bool)}
    pairs = [(time_s, _null(other)) for time_s, other in measurement.pairs]
    return row | flags | {"pairs": canonical(pairs)}


def from_row(key: str, op_devices: bytes, values: Sequence[Any]) -> tuple[float, Measurement]:
    """When it was taken, and the measurement; an error when it is not what was added."""
    taken_at, checksum, *columns = values
    row = dict(zip(COLUMNS, columns, strict=True))
    verify(checksum == checksum_of(key, op_devices.hex(), row))
    row["pairs"] = tuple((time_s, _nan(other)) for time_s, other in json.loads(row["pairs"]))
    row |= {name: bool(row[name]) for name in ("failed_to_compile", "cut_short")}
    row |= {name: _nan(row[name]) for name in ("output_error", "output_cosine")}
    measurement = Measurement(**row)
    verify(math.isfinite(taken_at) and is_storable(measurement))
    return taken_at, measurement


def verify(holds: bool) -> None:
    """ValueError when something about a row does not hold."""
    if not holds:
        raise ValueError("a row is not what was written")


def is_storable(one: Measurement) -> bool:
    """Whether it tells something that makes sense and holds for good."""
    times = [time_s for time_s, _ in one.pairs]
    times += [other for _, other in one.pairs if not math.isnan(other)]
    return (
        (one.failed_to_compile or not one.error)
        and (one.failed_to_compile or bool(times) or not math.isnan(one.output_error))
        and (not times or are_times(times))
        and isinstance(one.error, str)
        and isinstance(one.num_subgraphs, int)
        and one.num_subgraphs >= 0
        and all(0 <= seconds < math.inf for seconds in (one.compile_s, one.run_s))
        and not one.output_error < 0
        and not abs(one.output_cosine) > 1
    )


def are_times(seconds: Sequence[float]) -> bool:
    """Whether there are some, all above 0 and finite."""
    return bool(seconds) and all(0 < time_s < math.inf for time_s in seconds)


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _nan(value: Any) -> Any:
    return NAN if value is None else value


def describe(content: Mapping[str, Any]) -> tuple[str, str]:
    """Key and text of a problem or reference: equal ones have the same."""
    text = canonical(dict(content))
    return hashlib.sha256(text.encode()).hexdigest(), text


def checksum_of(*content: Any) -> str:
    """The same for the same content, of numbers and texts."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()


def canonical(content: Any) -> str:
    """JSON that is the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
