"""What files cost without a mount: a batch of small files into a bucket, a listing of a large version, a download."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, make_files, seconds, speed
from volume_core.domain.changes import Changes
from volume_core.facade.versions import Place
from volume_core.format.digests import digest
from volume_core.format.entries import ChunkRef, Entry, Extent, Kind
from volume_core.fs import VolumeFileSystem
from volume_core.parts.intents import HeldIntent
from volume_core.parts.publishing import About, publish_changes
from volume_core.volumes import Volume

UPLOADED = 10_000
ROUNDS = 5
DOWNLOADED = 1_000
DIRECTORIES, PER_DIRECTORY = 1_000, 1_000
FLAT = 10_000

SERVER = """
import sys
from volume_core.testing.s3server import S3Server
with S3Server() as server:
    server.make_bucket("bench")
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""


@contextmanager
def s3_server() -> Iterator[None]:
    """A bucket on this machine, in a process of its own, and in the environment who may use it."""
    environment = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_REGION": "us-east-1"}
    before = dict(os.environ)
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        os.environ.update(environment, AWS_ENDPOINT_URL=server.stdout.readline().decode().strip())
        try:
            yield
        finally:
            server.stdin.close()
            os.environ.clear()
            os.environ.update(before)


def upload(home: Path) -> Iterator[Figure]:
    """Put 10,000 files of 4 KiB in one batch, from the call to the version."""
    source = home / "source"
    source.mkdir()
    make_files(source, UPLOADED)
    files = sorted(path for path in source.rglob("*") if path.is_file())

    def put_directory(number: int) -> None:
        with Volume.new("bench", bucket=f"s3://bench/directory-{number}").batch_upload_sync() as batch:
            batch.put_directory(source, "/")

    def put_files(number: int) -> None:
        with Volume.new("bench", bucket=f"s3://bench/files-{number}").batch_upload_sync() as batch:
            for file in files:
                batch.put_file(file, f"/{file.parent.name}/{file.name}")

    with s3_server():
        for name, put in (("put_directory", put_directory), ("put_file, one by one", put_files)):
            speeds = [UPLOADED / seconds(lambda put=put, number=number: put(number)) for number in range(ROUNDS)]
            yield Figure(
                f"batch of {UPLOADED} files of 4 KiB: {name}", max(speeds), 5_000, "files/s", "into s3://, best"
            )


def version_of(home: Path, directories: int, files: int) -> str:
    """Return the locator of a version that has as many files, whose contents nobody will read."""
    store = Place(f"file://{home}/store").store()
    pack = os.urandom(32)
    rows = [(b"", b"", Entry(Kind.DIRECTORY, 0o755))]
    rows += [(b"", b"d%04d" % number, Entry(Kind.DIRECTORY, 0o755)) for number in range(directories)]
    for above in range(directories):
        for number in range(files):
            chunk = ChunkRef(digest(b"%d/%d" % (above, number)), pack, 64 + 4096 * (number % 4000), 4096, 4096)
            entry = Entry(Kind.FILE, 0o644, size=4096, content=(Extent(4096, chunk),))
            rows.append((b"d%04d" % above, b"f%05d" % number, entry))
    with HeldIntent(store, "bench") as intent:
        changes = Changes(rows, directories * files * 4096, len(rows))
        return publish_changes(store, intent, "bench", changes, None, About()).locator


def listings(home: Path) -> Iterator[Figure]:
    """List one directory by a handle that has not looked yet; the index is in the cache."""
    for directories, files in ((DIRECTORIES, PER_DIRECTORY), (1, FLAT)):
        locator = version_of(home / str(directories), directories, files)
        Volume.from_locator_sync(locator).listdir_sync("/")  # fetches the index
        times = []
        for number in range(ROUNDS):
            volume = Volume.from_locator_sync(locator)
            path = f"d{number % directories:04d}"
            times.append(seconds(lambda volume=volume, path=path: volume.listdir_sync(path)))
            volume.close_sync()
        name = f"listdir of {files} files of a {directories * files}-file version"
        yield Figure(name, statistics.median(times), 0.3, "s", "index cached, a fresh handle", lower_is_better=True)


def downloads(home: Path) -> Iterator[Figure]:
    """Get a directory of 1,000 files of 4 KiB by one call, and file by file."""
    source = home / "source"
    source.mkdir()
    make_files(source, DOWNLOADED, per_directory=50)
    fs = VolumeFileSystem(bucket=f"file://{home}/store")
    fs.put(f"{source}/", "bench", recursive=True)
    names = fs.find("bench")
    rounds = iter(range(1_000))

    def whole() -> float:
        target = f"{home}/whole-{next(rounds)}"
        return seconds(lambda: fs.get("bench", target, recursive=True))

    def one_by_one() -> float:
        target = f"{home}/single-{next(rounds)}"
        return seconds(lambda: [fs.get_file(name, f"{target}/{name}") for name in names])

    yield speed(f"vol:// get of {DOWNLOADED} files of 4 KiB", 1.5, whole, one_by_one)


def figures(home: Path) -> Iterator[Figure]:
    """Every figure of this page, each in a directory of its own."""
    for number, measure in enumerate((upload, listings, downloads)):
        place = home / f"files-{number}"
        place.mkdir()
        yield from measure(place)
        shutil.rmtree(place)
