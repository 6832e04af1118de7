"""`content_digest` of real versions: what a reader of files sees, by whatever history it came to be."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest
from blake3 import blake3
from facade_kit import committed, following
from rearranging import STEPS, plant_for_steps
from tree_kit import CHUNK_BYTES, noise, plant_everything

from volume_core import Volume


@pytest.fixture
def plain(tmp_path):
    (tmp_path / "plain").mkdir(mode=0o755)
    return tmp_path / "plain"


def version_of(directory: Path, name="data"):
    """A version that holds what *directory* does, made without a mount."""
    volume = Volume.new(name)
    with volume.batch_upload_sync() as batch:
        batch.put_directory(directory, "/")
    return batch.version


def digest_of_directory(root: Path) -> str:
    """What content_digest is documented to be, from a plain directory and with nothing of volume_core."""
    hasher = blake3(b"volume content 1\n")

    def text(data: bytes) -> bytes:
        return struct.pack("<I", len(data)) + data

    def add(path: bytes, name: bytes) -> None:
        info = os.lstat(path)
        kinds = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 4, stat.S_IFIFO: 5, stat.S_IFCHR: 6, stat.S_IFBLK: 7}
        kind = kinds[stat.S_IFMT(info.st_mode)]
        mode = 0 if kind == 4 else stat.S_IMODE(info.st_mode)
        xattrs = sorted(map(os.fsencode, os.listxattr(path, follow_symlinks=False)))
        xattrs = [each for each in xattrs if each.startswith(b"user.")]
        hasher.update(struct.pack("<BHI", kind, mode, len(name)) + name + struct.pack("<I", len(xattrs)))
        for each in xattrs:
            hasher.update(text(each) + text(os.getxattr(path, each)))
        if kind == 1:
            hasher.update(struct.pack("<Q", info.st_size))
            add_content(path)
        elif kind == 2:
            for child in sorted(os.listdir(path)):
                add(os.path.join(path, child), name + b"/" + child if name else child)
        elif kind == 4:
            hasher.update(text(os.readlink(path)))
        elif kind in {6, 7}:
            hasher.update(struct.pack("<Q", info.st_rdev))

    def add_content(path: bytes) -> None:
        runs: list[list] = []
        with open(path, "rb") as file:
            while cell := file.read(CHUNK_BYTES):
                found = blake3(cell).digest()
                if runs and runs[-1][1] == found:
                    runs[-1][0] += 1
                else:
                    runs.append([1, found])
        for run in runs:
            hasher.update(struct.pack("<Q32s", *run))

    add(os.fsencode(root), b"")
    return hasher.hexdigest()


def test_one_of_everything_is_hashed_as_it_is_documented(plain):
    plant_everything(plain)
    shutil.rmtree(plain / os.fsdecode(b"00" + b"d" * 198))  # what lies too deep for one call
    assert version_of(plain).content_digest_sync() == digest_of_directory(plain)


@pytest.mark.slow
def test_each_step_of_a_history_is_hashed_as_if_it_were_the_first(plain):
    """What a stack of commits shows is hashed as the plain directory is, to which the same was done."""
    plant_for_steps(plain)
    version = version_of(plain)
    digests = [version.content_digest_sync()]
    for step in STEPS:
        step(plain)
        version = following(version, step)
        digests.append(version.content_digest_sync())
        assert digests[-1] == digest_of_directory(plain), step.__name__
    assert len(set(digests)) == len(digests)


def test_ways_to_one_tree_have_one_digest():
    base = committed(files={"a.txt": "a", "d/b.txt": "b"})
    left, right = following(base, {"l.txt": "l"}, "left"), following(base, {"d/r.txt": "r"}, "right")
    at_once = following(base, {"l.txt": "l", "d/r.txt": "r"}, "at-once")
    wanted = at_once.content_digest_sync()

    assert Volume.merge_sync([left, right], "merged").content_digest_sync() == wanted
    assert following(left, {"d/r.txt": "r"}).content_digest_sync() == wanted
    assert at_once.fork_sync("renamed").commit_sync(even_if_unchanged=True).content_digest_sync() == wanted
    rewritten = following(at_once, lambda path: (path / "l.txt").write_text("l"))
    assert rewritten.content_digest_sync() == wanted
    back = following(following(at_once, {"l.txt": "other"}), {"l.txt": "l"})
    assert back.content_digest_sync() == wanted
    assert following(back, {"x": "x"}).revert_sync(back).content_digest_sync() == wanted
    assert base.content_digest_sync() != wanted


def test_a_long_history_has_the_digest_of_a_short_one():
    files = {f"f{number % 7}": f"{number}" for number in range(40)}
    version = committed(files={"n": "0"})
    for number in range(40):
        version = following(version, {f"f{number % 7}": f"{number}"})
    flat = committed("flat", {"n": "0", **files})

    assert len(version.log_sync()) == 41
    assert version.content_digest_sync() == flat.content_digest_sync()


def test_holes_are_zeros_and_hard_links_are_copies(tmp_path):
    sparse, dense = tmp_path / "sparse", tmp_path / "dense"
    for root in (sparse, dense):
        root.mkdir(mode=0o755)
        (root / "linked").write_bytes(b"one")
    os.link(sparse / "linked", sparse / "too")
    (dense / "too").write_bytes(b"one")
    with open(sparse / "holes", "wb") as file:
        file.write(b"start")
        file.seek(2 * CHUNK_BYTES + 100_000)
        file.write(noise(50))
        file.truncate(4 * CHUNK_BYTES + 1)
    (dense / "holes").write_bytes((sparse / "holes").read_bytes())
    one, other = version_of(sparse), version_of(dense)

    assert one.content_digest_sync() == other.content_digest_sync() == digest_of_directory(dense)


def test_it_can_be_awaited_and_asked_again_after_close():
    version = committed()
    found = asyncio.run(version.content_digest())
    version.close_sync()
    assert version.content_digest_sync() == found
    assert len(found) == 64
    assert Volume.from_locator_sync(version.locator).content_digest_sync() == found


def test_an_empty_volume_has_a_digest():
    one, other = Volume.new("one").commit_sync(), Volume.new("other").commit_sync()
    assert one != other
    assert one.content_digest_sync() == other.content_digest_sync()
