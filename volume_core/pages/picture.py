"""How a volume grew, as a picture by itself: for Markdown, which has no room for an SVG but for an image's address.

Always true: the address holds the whole picture, so whoever shows it fetches nothing; within an image nobody's style
is in force, so its colours are its own, of middling lightness, for white and for black.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from volume_core.pages import spelling
from volume_core.pages.chart import HEIGHT, WIDTH, Dot, chart
from volume_core.pages.facts import Point

_STYLE = (
    "<style>.vp-grid{stroke:#888;stroke-opacity:.35}.vp-tick{fill:#888;font:10.5px system-ui,sans-serif}"
    ".vp-line{fill:none;stroke:#3578b8;stroke-width:2;stroke-linejoin:round}.vp-area{fill:#3578b8;opacity:.13}"
    ".vp-dot{fill:#3578b8}.vp-near{opacity:0}</style>"
)


def picture(history: Sequence[Point]) -> str:
    """Return the Markdown of an image of the bytes over *history*, oldest first, at least one."""
    dots = [Dot(each.used_bytes, spelling.when(each.created_at).removesuffix(" UTC"), "") for each in history]
    drawn = chart(dots, "Bytes", spelling.size, binary=True)
    head, _, rest = drawn.partition(">")
    image = f'{head} width="{2 * WIDTH}" height="{2 * HEIGHT}">{_STYLE}{rest}'
    return f"![Bytes over {len(dots)} versions](data:image/svg+xml;base64,{base64.b64encode(image.encode()).decode()})"
