"""What it costs to compare and to merge versions: what differs, not what there is; and to say what one holds."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.figures import Figure, seconds
from volume_core.domain.changes import Changes
from volume_core.domain.diff import LayerRow
from volume_core.facade.comparing import Opened, keep_indexes
from volume_core.facade.versions import Place, Version
from volume_core.format.digests import digest
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind
from volume_core.format.names import Locator
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, Parent, publish_changes
from volume_core.volumes import ROVolume, Volume

DIRECTORIES = 2_000
FILES_EACH = 500
SIZE_BYTES = 4096
FORKS = 8
FORK_FILES = 1_000
ROUNDS = 5


def file_row(directory: int, number: int, seed: bytes = b"") -> LayerRow:
    """A small file with a content of its own."""
    chunk = ChunkRef(
        digest(b"%s%d/%d" % (seed, directory, number)),
        digest(b"pack"),
        32 + number * SIZE_BYTES,
        SIZE_BYTES,
        SIZE_BYTES,
    )
    content = (Extent(SIZE_BYTES, chunk),)
    return b"d%04d" % directory, b"f%06d" % number, Entry(Kind.FILE, 0o644, size=SIZE_BYTES, content=content)


def all_rows() -> Iterator[LayerRow]:
    """A million files in 2,000 directories."""
    yield b"", b"", Entry(Kind.DIRECTORY, 0o755)
    for number in range(DIRECTORIES):
        yield b"", b"d%04d" % number, Entry(Kind.DIRECTORY, 0o755)
    for directory in range(DIRECTORIES):
        for number in range(FILES_EACH):
            yield file_row(directory, number)


def published(place: Place, name: str, rows: Iterable[LayerRow], files: int, parent: Version | None = None) -> Version:
    """A version made of rows alone, as a commit would have made it; its packs do not exist."""
    store = place.store()
    totals = (parent.manifest.used_bytes, parent.manifest.inode_count) if parent else (0, DIRECTORIES + 1)
    delta = Changes(list(rows), totals[0] + files * SIZE_BYTES, totals[1] + files)
    with Opened() as opened, HeldIntent(store, name, [str(parent.locator)] if parent else []) as intent:
        above = Parent(str(parent.locator), parent.manifest, opened.view(parent)) if parent else None
        made = publish_changes(store, intent, name, delta, above, About())
    keep_indexes(made.indexes)
    return Version(Locator.parse(made.locator), made.manifest, place)


def diff_and_merge(home: Path) -> Iterator[Figure]:
    """Compare two versions of a million files that differ in ten, hash one, merge eight forks with 1,000 files each."""
    place = Place(f"file://{home}/store")
    files = DIRECTORIES * FILES_EACH
    base = published(place, "million", all_rows(), files)
    after = published(place, "million", [file_row(d * 100, 7, b"other") for d in range(10)], 0, base)
    one, other = ROVolume.of_version(base), ROVolume.of_version(after)
    assert len(one.diff_sync(other)) == 10
    took = statistics.median(seconds(lambda: one.diff_sync(other)) for _ in range(ROUNDS))
    yield Figure(f"diff of {files} files, 10 differ", took, 0.2, "s", "index cached", lower_is_better=True)
    # Not the same handle twice: that has its index open.
    times = [seconds(ROVolume.of_version(after).content_digest_sync) for _ in range(ROUNDS)]
    yield Figure(
        f"content digest of {files} files", statistics.median(times), 4.0, "s", "index cached", lower_is_better=True
    )
    forks = []
    for fork in range(FORKS):
        rows = [file_row(fork, FILES_EACH + number, b"fork") for number in range(FORK_FILES)]
        forks.append(ROVolume.of_version(published(place, f"fork-{fork}", rows, FORK_FILES, base)))
    times = []
    for number in range(ROUNDS):
        times.append(seconds(lambda name=f"merged-{number}": Volume.merge_sync(forks, name)))
    detail = f"of {files} files, {FORK_FILES} added by each"
    yield Figure(f"merge of {FORKS} forks", statistics.median(times), 1.0, "s", detail, lower_is_better=True)


def figures(home: Path) -> Iterator[Figure]:
    """Every figure of this page."""
    place = home / "comparing"
    place.mkdir()
    yield from diff_and_merge(place)
    shutil.rmtree(place)
