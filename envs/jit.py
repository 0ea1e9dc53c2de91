"""Compilation of loops with numba, on the first call or once arrays are large."""

from __future__ import annotations

import contextlib
import functools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 20  # calls on small arrays that Python finishes before numba would be imported


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that numba compiles on its first call, with a cache on disk if possible.

    >>> @compiled
    ... def double(number):
    ...     return 2 * number
    >>> double(4)
    8
    """
    warm = False

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        nonlocal warm
        result: R
        if warm:
            result = _machine_code(function)(*args, **kwargs)
            return result
        with (
            interrupts_later()
        ):  # numba loses a Ctrl-C, or breaks, while it is imported or compiles
            result = _machine_code(function)(*args, **kwargs)
        warm = True
        return result

    return call


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """Keep Ctrl-C back until the end of the block; do nothing outside of the main thread."""
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(signal.SIGINT, None)


def compiled_above(size: int) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator like `compiled` that leaves the first calls on small arrays to Python.

    Importing numba and loading machine code takes longer than such a call. The results are
    the same.

    Args:
        size: a call is small if its arrays have at most this many elements in total.

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
