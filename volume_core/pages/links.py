"""Where a page's links lead: said by the door that serves it, for only that knows its addresses.

Always true: a page that is given no links has none; what a link says is text of the page's, where it leads is the
door's and is escaped like any text.
"""

from __future__ import annotations

from html import escape
from typing import Protocol


class Links(Protocol):
    """The addresses of pages.  None: there is no such page for this reader, and the text stands without a link."""

    def volume(self, name: str) -> str | None:
        """Return where the history of the volume *name* is."""
        ...

    def version(self, locator: str) -> str | None:
        """Return where the page of the version at *locator* is."""
        ...

    def directory(self, path: str, after: int = 0) -> str | None:
        """Return where the listing of the directory *path* is, behind the entry at the position *after*."""
        ...

    def file(self, path: str) -> str | None:
        """Return where the bytes of the file *path* are."""
        ...


def linked(html: str, address: str | None, style: str = "") -> str:
    """Return *html* as a link to *address*, or as it is where that is None."""
    if address is None:
        return html
    kind = f' class="{style}"' if style else ""
    return f'<a{kind} href="{escape(address)}">{html}</a>'
