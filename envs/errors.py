"""Errors for users, and lookup of choices by name.

Each message has what was given, what is allowed and what to do, in that order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


class DevicePlacementError(ValueError):
    """Base class of all errors that wrong input raises."""


class ModelError(DevicePlacementError):
    """A model that is unknown, missing or unreadable, or has inputs of dynamic shape."""


class DeviceError(DevicePlacementError):
    """A device that is missing on this machine or can't be loaded."""


class InputError(DevicePlacementError):
    """Values for a model's inputs that can't be read or don't fit."""


class DevicePlacementWarning(UserWarning):
    """Something that a user should know of a result."""


class InventedInputsWarning(DevicePlacementWarning):
    """Invented values decide what a model runs, so its time may be that of another case."""


class PlacementError(DevicePlacementError):
    """A placement that does not fit its model, its groups or its devices."""


class StoreError(DevicePlacementError):
    """A store of evaluations that can't be read or written."""


def printable(text: str, max_length: int | None = None, keep: str = "\n\t") -> str:
    r"""Return a text that is safe to show: control characters escaped, and cut if it is long.

    Args:
        text: any.
        max_length: in characters, before it is escaped.
        keep: control characters that stay.

    >>> print(printable("red \x1b[31m text"))
    red \x1b[31m text
    """
    if max_length is not None and len(text) > max_length:
        text = f"{text[:max_length]} ... (cut)"
    return "".join(one if one.isprintable() or one in keep else repr(one)[1:-1] for one in text)


MAX_SEED = 2**32 - 1  # of NumPy's older generators, which stable-baselines3 uses


def check_seed(seed: int) -> None:
    """Check that every random generator takes a seed.

    Raises:
        DevicePlacementError: when one does not.
    """
    if not 0 <= seed <= MAX_SEED:
        raise DevicePlacementError(f"Got seed={seed}; it must be from 0 to {MAX_SEED}.")


def unknown(kind: str, name: object, allowed: Iterable[str]) -> str:
    """Return the message for an unknown name, with the nearest allowed one.

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
    """Look up a name in a table of choices, and return its entry.

    Raises:
        DevicePlacementError: or the given subclass, when the name is not in the table.
    """
    if not isinstance(name, str) or name not in table:
        raise error(unknown(kind, name, table))
    return table[name]
