"""Door: pages about versions, for the places where an engine shows what a task did.

    version_page(version) -> str         an HTML fragment; it brings its own style and needs nothing from outside
    version_markdown(version) -> str     the same facts, for places that take Markdown only
    history_page(newest, links=)         a volume: how it grew, its versions and their graph
    files_page(version, path, links=)    one directory of a version, page by page
    differences_page(a, b, links=)       what turns one version into another
    volumes_page(store, found, links=)   the volumes of a store
    document(fragments, title) -> str    fragments as a page by itself

A page is asked for when the work is done and committed, so it is written from whatever can be had: a parent
that was deleted, or a store that does not answer, is a sentence on the page and no error.
"""

from __future__ import annotations

from volume_core.pages.differences import differences_page
from volume_core.pages.history import history_page
from volume_core.pages.html import document, version_page
from volume_core.pages.links import Links
from volume_core.pages.listing import files_page
from volume_core.pages.markdown import version_markdown
from volume_core.pages.volumes import volumes_page

__all__ = [
    "Links",
    "differences_page",
    "document",
    "files_page",
    "history_page",
    "version_markdown",
    "version_page",
    "volumes_page",
]
