"""Compaction: when a stack is so high that one merged index is the better thing to mount.

Why: each layer is one more index to fetch and one more place to ask for a directory, and rows that
newer layers hide are dead weight.  Only the stack changes: no pack is written, no delta is touched.

Always true: the merged index alone shows the very tree that the stack shows, hard links included.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from volume_core.domain.view import View
from volume_core.format.entries import Entry
from volume_core.format.manifest import LayerRef

# A lookup of a name that is nowhere asks every layer: eight of them cost about 50 us.
LAYERS_MAX = 8


def needs_compaction(stack: Sequence[LayerRef]) -> bool:
    """Whether *stack*, oldest first, the new layer included, is to be replaced by one merged layer.

    So it is when it is too high, and when the newer layers' rows exceed half of the oldest's: the
    work of merging is then paid for by as many rows committed since the last time.
    """
    newer = sum(layer.rows for layer in stack[1:])
    return len(stack) > LAYERS_MAX or (len(stack) > 1 and 2 * newer > stack[0].rows)


def merged_rows(view: View) -> Iterator[tuple[bytes, bytes, Entry]]:
    """Yield all that *view* shows as rows for write_layer, in its order: by directory, then by name.

    Directories that wait to be listed are kept in a heap: what lies below a path sorts behind it, so
    the least of them is always the next one, and no tree has to be in memory.
    """
    yield b"", b"", view.entry(view.root)
    waiting = [(b"", view.root)]
    while waiting:
        path, directory = heapq.heappop(waiting)
        for node in view.listing(directory):
            yield path, node.name, view.entry(node)
            if node.is_directory:
                heapq.heappush(waiting, (node.path, node))
