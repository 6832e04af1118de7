"""One number over a history, as an SVG picture: dots at equal steps, a line through them, an axis from zero.

Always true: the picture is a function of its values; it has no script, no id and nothing from outside; all text in it
is escaped; colours come from the page's style and from `currentColor`, so it is read on white and on black.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 320, 165
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 12, 26  # room for the axes' texts around the plot
_STEPS = 4  # an axis has so many steps at most
_DOTS_APART = 6  # nearer than this, dots are only found by the pointer


class Dot(NamedTuple):
    """A value, when it was so, and what the pointer is told."""

    value: int
    when: str
    told: str


class Axis(NamedTuple):
    """From 0 to `top`, with a line at each `step`."""

    step: int
    top: int

    @classmethod
    def of(cls, largest: int, *, binary: bool) -> Axis:
        """Return the axis for values up to *largest*, in steps of 1, 2 or 5 by tens, or *binary*, by powers of two."""
        wanted = max(-(-largest // _STEPS), 1)
        if binary:
            step = 1 << (wanted - 1).bit_length()
        else:
            ten = 10 ** (len(str(wanted)) - 1)
            step = next(times * ten for times in (1, 2, 5, 10) if times * ten >= wanted)
        return cls(step, max(-(-largest // step), 1) * step)

    @property
    def ticks(self) -> list[int]:
        """The values that have a line."""
        return list(range(0, self.top + 1, self.step))


def chart(dots: Sequence[Dot], name: str, spelled: Callable[[int], str], *, binary: bool = False) -> str:
    """Return the SVG of *dots*, oldest first, at least one.

    *name* says what the values are, *spelled* how one is written; *binary* as Axis has it.
    """
    axis = Axis.of(max(dot.value for dot in dots), binary=binary)
    places = [(_across(number, len(dots)), _up(dot.value, axis)) for number, dot in enumerate(dots)]
    first, last = dots[0], dots[-1]
    label = f"{name} over {len(dots)} versions, from {spelled(first.value)} to {spelled(last.value)}"
    parts = [
        f'<svg class="vp-chart" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(label)}">',
        *_grid(axis, spelled),
        *_times(dots),
        *_line(places),
        *_dots(dots, places),
        "</svg>",
    ]
    return "".join(parts)


def _across(number: int, count: int) -> float:
    """Where the dot of that number stands: in the middle if it is the only one."""
    inside = WIDTH - LEFT - RIGHT
    return round(LEFT + inside * (number / (count - 1) if count > 1 else 0.5), 1)


def _up(value: int, axis: Axis) -> float:
    inside = HEIGHT - TOP - BOTTOM
    return round(TOP + inside * (1 - value / axis.top), 1)


def _grid(axis: Axis, spelled: Callable[[int], str]) -> list[str]:
    parts = []
    for tick in axis.ticks:
        height = _up(tick, axis)
        parts.append(f'<line class="vp-grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height}" y2="{height}"/>')
        text = html.escape(spelled(tick))
        parts.append(f'<text class="vp-tick" x="{LEFT - 8}" y="{height + 3.5}" text-anchor="end">{text}</text>')
    return parts


def _times(dots: Sequence[Dot]) -> list[str]:
    """The first one's time below it and the last one's; one by itself has its own in the middle."""
    if len(dots) == 1:
        return [_time(dots[0], (WIDTH - RIGHT + LEFT) / 2, "middle")]
    return [_time(dots[0], LEFT, "start"), _time(dots[-1], WIDTH - RIGHT, "end")]


def _time(dot: Dot, across: float, anchor: str) -> str:
    place = f'x="{across}" y="{HEIGHT - 8}" text-anchor="{anchor}"'
    return f'<text class="vp-tick" {place}>{html.escape(dot.when)}</text>'


def _line(places: Sequence[tuple[float, float]]) -> list[str]:
    if len(places) < 2:
        return []
    line = " ".join(f"{across},{up}" for across, up in places)
    floor = HEIGHT - BOTTOM
    return [
        f'<polygon class="vp-area" points="{places[0][0]},{floor} {line} {places[-1][0]},{floor}"/>',
        f'<polyline class="vp-line" points="{line}"/>',
    ]


def _dots(dots: Sequence[Dot], places: Sequence[tuple[float, float]]) -> list[str]:
    near = len(places) > 1 and places[1][0] - places[0][0] < _DOTS_APART
    parts = []
    for number, (dot, (across, up)) in enumerate(zip(dots, places, strict=True)):
        is_last = number == len(dots) - 1
        kind = "vp-dot vp-last" if is_last else "vp-dot vp-near" if near else "vp-dot"
        place = f'cx="{across}" cy="{up}" r="{4 if is_last else 3}"'
        parts.append(f'<circle class="{kind}" {place}><title>{html.escape(dot.told)}</title></circle>')
    return parts
