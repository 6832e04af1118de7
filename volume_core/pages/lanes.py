"""What came from what, drawn beside a list of versions: a dot for each, and lines to its parents further down.

Versions stand below each other, newest first, and each line of descent runs in a lane of its own.  A row's picture is
an SVG as high as the row; the pictures of neighbouring rows meet at their edges.

Always true: a lane stays where it is until its version comes; a parent that is not in the list is a line that fades
out, and takes no lane; the picture is a function of the list, without text, script or id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

HEIGHT = 36  # of a row, in the units of a page: pixels
_APART = 14
_LEFT = 10
_LANES_MAX = 16  # what is further to the right is drawn in the last one
_COLOURS = 4


class Crossing(NamedTuple):
    """What happens in one row: the lane of its dot, the lanes that pass, end in the dot, and begin in it.

    `fades`: a parent of it is not in the list.
    """

    dot: int
    passing: tuple[int, ...]
    ending: tuple[int, ...]
    beginning: tuple[int, ...]
    fades: bool

    @property
    def width(self) -> int:
        """How many lanes the row takes."""
        return 1 + max((self.dot, *self.passing, *self.ending, *self.beginning))


def crossings(parents: Mapping[str, Sequence[str]]) -> Iterator[Crossing]:
    """Yield the row of each version of *parents*, which maps them, newest first, to what they came from."""
    lanes: list[str | None] = []  # the version that each lane leads to
    left = set(parents)
    for version, above in parents.items():
        left.discard(version)
        ending = tuple(number for number, wanted in enumerate(lanes) if wanted == version)
        dot = ending[0] if ending else _free(lanes)
        passing = tuple(n for n, wanted in enumerate(lanes) if wanted is not None and wanted != version)
        for number in (*ending, dot):
            lanes[number] = None
        beginning = []
        for parent in dict.fromkeys(above):
            if parent not in left:
                continue
            number = lanes.index(parent) if parent in lanes else dot if lanes[dot] is None else _free(lanes)
            lanes[number] = parent
            beginning.append(number)
        yield Crossing(dot, passing, ending, tuple(beginning), any(parent not in left for parent in above))


def _free(lanes: list[str | None]) -> int:
    if None in lanes:
        return lanes.index(None)
    lanes.append(None)
    return len(lanes) - 1


def drawn(row: Crossing, width: int) -> str:
    """Return the SVG of *row*, *width* lanes wide."""
    size = _LEFT * 2 + _APART * (min(width, _LANES_MAX) - 1)
    dot, middle = _across(row.dot), HEIGHT / 2
    paths = [_path(number, f"M{_across(number)} 0V{HEIGHT}") for number in row.passing]
    paths += [_path(number, _bent(_across(number), 0, dot, middle)) for number in row.ending]
    paths += [_path(number, _bent(dot, middle, _across(number), HEIGHT)) for number in row.beginning]
    if row.fades:
        paths.append(_path(row.dot, f"M{dot} {middle}V{HEIGHT}", " vp-fades"))
    return (
        f'<svg class="vp-graph" xmlns="http://www.w3.org/2000/svg" width="{size}" height="{HEIGHT}" '
        f'viewBox="0 0 {size} {HEIGHT}" aria-hidden="true">{"".join(paths)}'
        f'<circle class="vp-knot vp-lane{row.dot % _COLOURS}" cx="{dot}" cy="{middle}" r="4.5"/></svg>'
    )


def _across(lane: int) -> int:
    return _LEFT + _APART * min(lane, _LANES_MAX - 1)


def _bent(from_x: int, from_y: float, to_x: int, to_y: float) -> str:
    half = (from_y + to_y) / 2
    return f"M{from_x} {from_y}C{from_x} {half} {to_x} {half} {to_x} {to_y}"


def _path(lane: int, drawing: str, more: str = "") -> str:
    return f'<path class="vp-edge vp-lane{lane % _COLOURS}{more}" d="{drawing}"/>'
