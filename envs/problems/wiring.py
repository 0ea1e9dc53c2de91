"""Families of random DAGs: which op reads from which, before ops have types and sizes.

Ops are numbered in topological order. None of the families has a structure of a known network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from device_placement.envs.problems.draws import Draws

Edge = tuple[int, int]  # producer, consumer
ENTRY = -1  # within a block: what the block reads


@dataclass(frozen=True)
class Wiring:
    """Edges between ops, and which ops are alike."""

    edges: Sequence[Edge]
    kind: Sequence[int]  # (num_ops,) ops of one kind have one type, one shape and equal sizes


def draw_wiring(family: str, num_ops: int, draws: Draws) -> Wiring:
    """Draw a DAG of a family; in half of them ops are ordered by level, in the others by branch.

    Args:
        family: a name of `FAMILIES`.
        num_ops: number of ops.
        draws: all random choices.
    """
    wiring = FAMILIES[family](num_ops, draws)
    return _by_level(wiring) if draws.chance(0.5) else wiring


def layered(num_ops: int, draws: Draws) -> Wiring:
    """Draw layers of random width; an op reads from the layer before, or skips some layers."""
    typical = draws.whole_scale(1, max(2, min(20, num_ops // 4)))
    most_inputs, skips = draws.whole(1, 4), draws.scale(0.01, 0.3)
    layers: list[range] = []
    first = 0
    while first < num_ops:
        width = min(draws.whole(1, 2 * typical - 1), num_ops - first)
        layers.append(range(first, first + width))
        first += width
    edges: list[Edge] = []
    read: set[int] = set()
    for number, layer in enumerate(layers[1:], start=1):
        for op in layer:
            for _ in range(draws.whole(1, most_inputs)):
                back = draws.whole(1, min(8, number)) if draws.chance(skips) else 1
                edges.append((draws.one(layers[number - back]), op))
                read.add(edges[-1][0])
        edges += [(op, draws.one(layer)) for op in layers[number - 1] if op not in read]
    return Wiring(edges, range(num_ops))


def branching(num_ops: int, draws: Draws) -> Wiring:
    """Draw branches that split and join, nested, of different lengths."""
    edges: list[Edge] = []
    forks, most_branches, deepest = draws.uniform(0.2, 0.8), draws.whole(2, 8), draws.whole(1, 4)
    made = 0

    def op(*producers: int) -> int:
        nonlocal made
        edges.extend((producer, made) for producer in producers)
        made += 1
        return made - 1

    def series(length: int, last: int, depth: int) -> int:
        """Add as many ops after the last one; return the last of them."""
        end = made + length
        while made < end:
            left = end - made
            if left < 3 or depth == deepest or not draws.chance(forks):
                last = op(last)
                continue
            inner = draws.whole_scale(2, left - 1)
            ends: dict[int, None] = {}
            for size in _parts(inner, draws.whole(2, min(most_branches, inner)), draws):
                ends[series(size, last, depth + 1)] = None
            if draws.chance(0.2):
                ends[last] = None  # a branch without ops
            last = op(*ends)
        return last

    series(num_ops - 1, op(), 0)
    return Wiring(edges, range(num_ops))


def chained(num_ops: int, draws: Draws) -> Wiring:
    """Draw a chain of small random blocks, each a different one, and edges that skip some."""
    edges: list[Edge] = []
    exits = [0]
    made, skips = 1, draws.scale(0.02, 0.5)
    least, most = 2, draws.whole(3, 14)
    while made < num_ops:
        block = draw_block(min(draws.whole(least, most), num_ops - made), draws)
        edges += _placed(block, made, exits[-1])
        made += len(block)
        if draws.chance(skips) and len(block) > 1:
            edges.append((draws.one(exits[-6:]), made - 1))
        exits.append(made - 1)
    return Wiring(edges, range(num_ops))


def repeated(num_ops: int, draws: Draws) -> Wiring:
    """Draw one random block, repeated in a chain or in several chains that join at the end."""
    size = draws.whole_scale(3, max(3, min(24, num_ops // 3)))
    block = draw_block(size, draws)
    repeats = (num_ops - 1) // size
    chains = min(repeats, draws.pick({1: 0.5, 2: 0.25, 3: 0.15, 4: 0.1}))
    edges: list[Edge] = []
    kind: list[int] = []
    ends = [ENTRY] * chains
    # Chain by chain; the last one takes what is left.
    for number, length in enumerate(_even(repeats, chains)):
        for _ in range(length):
            edges += _placed(block, len(kind), ends[number])
            kind += range(size)
            ends[number] = len(kind) - 1
    edges += [(end, len(kind)) for end in ends]  # what joins them
    kind.append(size)
    while len(kind) < num_ops:
        edges.append((len(kind) - 1, len(kind)))
        kind.append(len(kind))
    return Wiring(edges, kind)


FAMILIES: Mapping[str, Callable[[int, Draws], Wiring]] = {
    function.__name__: function for function in (layered, branching, chained, repeated)
}
"""Name -> function that draws a DAG with a given number of ops."""


def draw_block(size: int, draws: Draws) -> list[list[int]]:
    """Draw the producers of each op of a block; the first op alone reads the entry, the last ends.

    Returns:
        (size,) ops that each one reads, or `ENTRY`.
    """
    reach, most_inputs = draws.whole(1, 5), draws.whole(1, 3)
    producers = [[ENTRY]]
    unread = {0}
    for op in range(1, size):
        earlier = range(max(0, op - reach), op)
        if op == size - 1:
            chosen = sorted(unread)
        else:
            chosen = sorted({draws.one(earlier) for _ in range(draws.whole(1, most_inputs))})
        unread.difference_update(chosen)
        unread.add(op)
        producers.append(chosen)
    return producers


def _placed(block: Sequence[Sequence[int]], first: int, entry: int) -> list[Edge]:
    """Return the edges of a block whose ops are numbered from `first`; no entry has no edge."""
    return [
        (entry if producer == ENTRY else first + producer, first + op)
        for op, producers in enumerate(block)
        for producer in producers
        if producer != ENTRY or entry != ENTRY
    ]


def _parts(total: int, number: int, draws: Draws) -> list[int]:
    """Split a number into positive random parts."""
    cuts = sorted(draws.some(range(1, total), number - 1))
    return [end - begin for begin, end in zip([0, *cuts], [*cuts, total], strict=True)]


def _even(total: int, number: int) -> list[int]:
    """Split a number into parts as equal as possible."""
    return [total * (part + 1) // number - total * part // number for part in range(number)]


def _by_level(wiring: Wiring) -> Wiring:
    """Number the ops by the longest path to each, then as before."""
    level = op_levels(len(wiring.kind), wiring.edges)
    order = sorted(range(len(level)), key=level.__getitem__)
    rank = {op: number for number, op in enumerate(order)}
    edges = [(rank[producer], rank[consumer]) for producer, consumer in wiring.edges]
    return Wiring(edges, [wiring.kind[op] for op in order])


def op_levels(num_ops: int, edges: Sequence[Edge]) -> list[int]:
    """Return the number of edges of the longest path to each op, (num_ops,).

    Ops of one level are on no common path, so the widest level is a lower bound on the largest
    antichain.

    >>> op_levels(4, [(0, 1), (1, 2), (0, 2)])
    [0, 1, 2, 0]
    """
    level = [0] * num_ops
    for producer, consumer in sorted(edges):  # those into a producer come before those from it
        level[consumer] = max(level[consumer], level[producer] + 1)
    return level
