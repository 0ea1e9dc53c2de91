"""Changes to a preset's settings: parse them, and bound those that come from a file."""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping
from typing import Any

from device_placement.envs.errors import DevicePlacementError, printable

MAX_SIZE = 1024  # of a network's settings in a file, unless its weights are larger
MAX_LAYERS = 64
MAX_STEPS = 65_536  # of an algorithm's settings in a file
MAX_WORD = 64


def parse_overrides(text: str) -> dict[str, Any]:
    """Parse NAME=VALUE;NAME=VALUE into settings by name.

    Raises:
        DevicePlacementError: when the text has another form.

    >>> parse_overrides("learning_rate=1e-3;extractor.conv=gat")
    {'learning_rate': 0.001, 'extractor.conv': 'gat'}
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(";")):
        name, sign, value = (one.strip() for one in part.partition("="))
        if not (sign and name and value):
            raise DevicePlacementError(
                f"Got {part!r} as a setting; write them as NAME=VALUE;NAME=VALUE."
            )
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):  # a word, or nested deeply
            found[name] = value
    return found


def check_file_overrides(
    overrides: Mapping[str, Any], source: str | os.PathLike[str], max_size: int = MAX_SIZE
) -> None:
    """Check that settings from a file are plain values of moderate size.

    Args:
        overrides: settings of a preset by name.
        source: the file, for the message.
        max_size: of a network's settings.

    Raises:
        DevicePlacementError: when one is not.
    """
    for name, value in overrides.items():
        most = MAX_LAYERS if "layers" in name else max_size if "." in name else MAX_STEPS
        if isinstance(value, str):
            fits = len(value) <= MAX_WORD
        elif isinstance(value, int):
            fits = -most <= value <= most
        else:
            fits = value is None or isinstance(value, float)
        if not fits:
            raise DevicePlacementError(
                f"Got {name}={printable(str(value), 60)} in {str(source)!r}; a file may set {name} "
                f"to a word or a number of at most {most}. In a run of your own, repeat it: "
                "--override."
            )
