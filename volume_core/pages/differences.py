"""Two versions side by side as an HTML fragment: what turns the one into the other.

Always true: as html.py has it; what cannot be told is a sentence, where too much would have to be fetched too.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from volume_core.errors import VolumeError
from volume_core.facade.telling import changed_between
from volume_core.pages import spelling
from volume_core.pages.facts import COUNTED_MAX, Changes
from volume_core.pages.html import listed, wrapped
from volume_core.pages.links import Links, linked

if TYPE_CHECKING:
    from volume_core.volumes import ROVolume

PATHS_MAX = 500


def differences_page(before: ROVolume, after: ROVolume, *, links: Links, paths_max: int = PATHS_MAX) -> str:
    """Return an HTML fragment about what turns *before* into *after*, *paths_max* paths at most."""
    sides = [
        f"{escape(each.name)} {linked(f'<code>{each.version[:12]}</code>', links.version(each.locator))}"
        for each in (before, after)
    ]
    return wrapped([f"<p>From {sides[0]} to {sides[1]}</p>", _told(before, after, paths_max)])


def _told(before: ROVolume, after: ROVolume, limit: int) -> str:
    try:
        found = changed_between(before._locked_version(), after._locked_version(), max(COUNTED_MAX, limit))
    except VolumeError as error:
        return f'<p class="vp-note">What changed cannot be told: {escape(spelling.line(str(error)))}</p>'
    if found is None:
        much = "What changed is not told here: too much would have to be fetched. <code>volume diff</code> tells it."
        return f'<p class="vp-note">{much}</p>'
    return listed(Changes.of(found, limit))
