"""Replace a file by another, also on Windows while somebody else reads it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

IN_USE = (5, 32)  # Windows: access denied, sharing violation
PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 1.0, 1.0, 1.0)  # about 5 seconds in all


def replace_with_retries(
    draft: str | os.PathLike[str],
    target: str | os.PathLike[str],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Move a file to where another one may be, as `os.replace` does.

    Windows refuses this while a virus scanner, an indexer or a reader has one of them open. It
    is then tried again for about 5 seconds. Other systems allow it, so their errors are final.

    Args:
        draft: the file to move.
        target: in the same folder.
        pause: waits for some seconds.

    Raises:
        OSError: when the file can't be moved.
    """
    for pause_s in PAUSES_S:
        try:
            os.replace(draft, target)
        except PermissionError as error:
            if getattr(error, "winerror", None) not in IN_USE:
                raise
            pause(pause_s)
        else:
            return
    os.replace(draft, target)
