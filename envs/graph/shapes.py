"""Upper bounds of shapes that depend on the data, from which FLOPs and bytes are counted."""

from __future__ import annotations

from typing import Any


def largest_shape(port: Any) -> tuple[int, ...]:
    """Return the shape of an input or output of an op, with the upper bound of each size.

    A size without an upper bound counts as 1, and so does a shape of unknown rank.

    Args:
        port: an ``openvino.Input`` or ``openvino.Output``.
    """
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return ()
    return tuple(_largest(size) for size in shape)


def _largest(size: Any) -> int:
    largest = size.get_length() if size.is_static else size.get_max_length()
    return int(largest) if largest >= 0 else 1


def is_bounded(port: Any) -> bool:
    """Return whether every size of a shape has an upper bound."""
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:
        return False
    return all(size.is_static or size.get_max_length() >= 0 for size in shape)
