"""Door: pages about versions, for the places where an engine shows what a task did.

    version_page(version) -> str         an HTML fragment; it brings its own style and needs nothing from outside
    version_markdown(version) -> str     the same facts, for places that take Markdown only
    document(fragments, title) -> str    fragments as a page by itself

A page is asked for when the work is done and committed, so it is written from whatever can be had: a parent
that was deleted, or a store that does not answer, is a sentence on the page and no error.
"""

from __future__ import annotations

from volume_core.pages.html import document, version_page
from volume_core.pages.markdown import version_markdown

__all__ = ["document", "version_markdown", "version_page"]
