"""What a deck shows of a volume: a page about its version.

Always true: a page that cannot be made is a line that says why; a task does not fail for its deck, since by then its
volumes are committed.
"""

from __future__ import annotations

import html
import logging

from volume_core.volumes import ROVolume, RWVolume

log = logging.getLogger(__name__)


def page(value: object) -> str:
    """Return an HTML fragment about the version that *value* is, or was last committed as."""
    try:
        version = value.committed if isinstance(value, RWVolume) else value
        if not isinstance(version, ROVolume):
            return "<p>nothing is committed</p>"
        from volume_core.pages import version_page

        return version_page(version)
    except Exception as error:
        log.warning("a volume is missing in the deck: %s: %s", type(error).__name__, error)
        locator = getattr(value, "index", None) or ""
        return f"<p>{html.escape(f'{locator} {type(error).__name__}: {error}')}</p>"
