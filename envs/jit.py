"""Compilation of loops with numba on their first call, or once they are called on much."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 20  # calls on small arrays that Python itself answers sooner than numba is imported


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


def compiled_above(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function as `compiled` does, but leave its first calls on small arrays to Python.

    Importing numba and loading machine code takes longer than such a call. Both ways give the
    same numbers.

    Args:
        size: the most elements that the arrays of a small call have together.

    >>> @compiled_above(100)
    ... def total(numbers):
    ...     return numbers.sum()
    >>> float(total(np.ones(4))), float(total(np.ones(1000)))
    (4.0, 1000.0)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        fast, left = compiled(function), PATIENCE

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal left
            if left and sum(one.size for one in args if isinstance(one, np.ndarray)) <= size:
                left -= 1
                return function(*args, **kwargs)
            left = 0
            return fast(*args, **kwargs)

        return call

    return decorate


@functools.cache
def _machine_code(function: Any) -> Any:
    import numba

    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # neither the package nor the home folder can be written
        return numba.njit()(function)
