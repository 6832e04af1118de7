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
        return _page(version) if isinstance(version, ROVolume) else "<p>nothing is committed</p>"
    except Exception as error:
        log.warning("a volume is missing in the deck: %s", error)
        return f"<p>{html.escape(f'{type(error).__name__}: {error}')}</p>"


def _page(version: ROVolume) -> str:
    return f"<h4>{html.escape(version.name)}</h4><code>{html.escape(version.locator)}</code>"
