"""What a version holds, as one digest: for caches that shall hit on equal contents, whatever their history."""

from __future__ import annotations

from volume_core.domain.contents import content_digest
from volume_core.facade.files import ReadsFiles
from volume_core.facade.twins import awaitable


class KnowsContents(ReadsFiles):
    """The side of a version that other versions of the same contents are like."""

    def content_digest_sync(self) -> str:
        """Return 64 hexadecimal digits, equal for two versions in which a program reads the same.

        Counted are paths, kinds, permission bits, files' bytes, symlinks' targets, devices' numbers and `user.`
        extended attributes; not owners, times, hard links and holes, nor name, store and history.  It is found
        from the indexes, some seconds for a million files; only of files with holes are bytes read.
        """
        with self._look() as browser:
            reader = browser.reader
            return content_digest(
                browser.view, lambda cell: reader.read(cell, 0, sum(extent.length for extent in cell))
            )

    content_digest = awaitable(content_digest_sync)
