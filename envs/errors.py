"""Errors that a user can meet, and lookup of choices by name.

Each message says what was given, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class DevicePlacementError(ValueError):
    """Base of every error that a wrong input raises here."""


class ModelError(DevicePlacementError):
    """A model that is unknown, missing, unreadable or of dynamic shape."""


class DeviceError(DevicePlacementError):
    """A device that this machine does not have or can't load."""


class PlacementError(DevicePlacementError):
    """A placement that does not fit its model, its groups or its devices."""


class StoreError(DevicePlacementError):
    """A store of evaluations that can't be read or written."""


def unknown(kind: str, name: object, allowed: Iterable[str]) -> str:
    """The message for a wrong name, with the nearest allowed one.

    >>> unknown("reward", "invers", ["inverse", "relative"])
    "Unknown reward 'invers'; allowed: inverse, relative. Did you mean 'inverse'?"
    """
    names = list(allowed)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}; allowed: {', '.join(names)}.{hint}"


def choose(
    kind: str,
    name: str,
    table: Mapping[str, T],
    error: type[DevicePlacementError] = DevicePlacementError,
) -> T:
    """Look a name up in a table of choices.

    Raises:
        DevicePlacementError: or the given subclass, when the table lacks the name.
    """
    if not isinstance(name, str) or name not in table:
        raise error(unknown(kind, name, table))
    return table[name]
