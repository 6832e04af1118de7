"""The lines beside a log that show which version came from which.

    ●      the newest: it was merged from two
    ├─╮
    ● │
    │ ●
    ├─╯
    ●      both came from this one

Always true: every version comes before those that it came from, whatever the clocks said that wrote them;
a lane leads down from each version to its parents, or to where what is shown ends.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

COMMIT = "●"


def topological(parents: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the keys of *parents*, children before their parents, else in the order given."""
    order = {each: number for number, each in enumerate(parents)}
    children = dict.fromkeys(parents, 0)
    for each in parents:
        for parent in set(parents[each]) & children.keys():
            children[parent] += 1
    ready = [number for each, number in order.items() if not children[each]]
    names = list(order)
    found: list[str] = []
    while ready:
        each = names[heapq.heappop(ready)]
        found.append(each)
        for parent in set(parents[each]) & children.keys():
            children[parent] -= 1
            if not children[parent]:
                heapq.heappush(ready, order[parent])
    return found


def graph(parents: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str | None]]:
    """Yield lines, each with the version that it shows (None: it only connects), in topological order."""
    lanes: list[str | None] = []  # the version that each lane leads to
    for each in topological(parents):
        here = [number for number, wanted in enumerate(lanes) if wanted == each]
        lane = here[0] if here else _free(lanes)
        if len(here) > 1:
            yield _joining(lanes, lane, here[1:], "┴╯"), None
            for other in here[1:]:
                lanes[other] = None
        lanes[lane] = each
        yield _row([COMMIT if number == lane else _lane(lanes, number) for number in range(len(lanes))]), each
        yield from _towards_parents(lanes, lane, parents[each])
        while lanes and lanes[-1] is None:
            lanes.pop()


def _towards_parents(lanes: list[str | None], lane: int, parents: Sequence[str]) -> Iterator[tuple[str, None]]:
    """Let *lane* go on to the first of *parents*, and lanes beside it to the others."""
    distinct = list(dict.fromkeys(parents))
    lanes[lane] = distinct[0] if distinct else None
    for parent in distinct[1:]:
        known = next((number for number, wanted in enumerate(lanes) if wanted == parent and number != lane), None)
        if known is not None:
            yield _joining(lanes, lane, [known], "┼┤"), None
            continue
        beside = _free(lanes, lane + 1)
        yield _joining(lanes, lane, [beside], "┬╮"), None
        lanes[beside] = parent


def _free(lanes: list[str | None], first: int = 0) -> int:
    """Return the first lane from *first* on that leads nowhere; a further one where there is none."""
    for number in range(first, len(lanes)):
        if lanes[number] is None:
            return number
    lanes.append(None)
    return len(lanes) - 1


def _lane(lanes: Sequence[str | None], number: int) -> str:
    return "│" if lanes[number] is not None else " "


def _joining(lanes: Sequence[str | None], lane: int, others: Sequence[int], signs: str) -> str:
    """A line from *lane* to *others*, all on one side of it: *signs* are for one in the midst, and for the last."""
    backwards = others[-1] < lane
    last = min(others) if backwards else max(others)
    low, high = sorted((lane, last))
    cells = [_lane(lanes, number) for number in range(len(lanes))]
    for number in range(low + 1, high):
        cells[number] = signs[0] if number in others else "┼" if lanes[number] is not None else "─"
    cells[lane] = "┤" if backwards else "├"
    cells[last] = {"╯": "╰", "┤": "├", "╮": "╭"}[signs[1]] if backwards else signs[1]
    return _row(cells, low, high)


def _row(cells: Sequence[str], low: int = 0, high: int = 0) -> str:
    """*cells* side by side, joined by a line between *low* and *high*."""
    return "".join(cell + ("─" if low <= number < high else " ") for number, cell in enumerate(cells)).rstrip()
