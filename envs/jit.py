"""Loops as machine code, compiled when they are first called."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function with numba on its first call; kept on disk where there is a place.

    >>> @compiled
    ... def double(number):
    ...     return 2 * number
    >>> double(4)
    8
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = _machine_code(function)(*args, **kwargs)
        return result

    return call


@functools.cache
def _machine_code(function: Any) -> Any:
    import numba

    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # neither the package nor the home folder can be written
        return numba.njit()(function)
