"""Whether a layer of changes touches a path: what `log -- path` asks of each version's delta.

Always true: a few rows are looked up, however large the layer and the tree; nothing is walked.
"""

from __future__ import annotations

from volume_core.format.entries import Kind, split
from volume_core.format.layer import ROOT_DIR, LayerReader

_DIRECTORY = int(Kind.DIRECTORY)


def touches(delta: LayerReader, path: bytes) -> bool | None:
    """Whether *delta* changes anything at or below *path*.

    None: something above *path* was removed or replaced with all below it, so it does if the tree before
    had anything at *path*.
    """
    if _has_row(delta, path) or next(delta.directories(path), None) is not None:
        return True
    while path:
        path = split(path)[0]
        directory, name = split(path)
        ident = delta.directory(directory) if path else ROOT_DIR
        row = delta.row_named(ident, name) if ident is not None else None
        if row is not None and row.kind != _DIRECTORY:
            return None
    return False


def _has_row(delta: LayerReader, path: bytes) -> bool:
    directory, name = split(path)
    ident = delta.directory(directory) if path else ROOT_DIR
    return ident is not None and delta.row_named(ident, name) is not None
