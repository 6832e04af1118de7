"""Whole directories through `vol://`: what comes out is what went in, and nothing is followed out of the tree."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from fs_kit import TREE, committed, write
from fsspec.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st

from volume_core import Volume
from volume_core.errors import StorageError
from volume_core.fs import VolumeFileSystem, url_of
from volume_core.parts.reading import Reader
from volume_core.parts.state import State
from volume_core.testing.users import NOBODY, as_nobody

SECRET = b"not part of any tree"


def look(root: Path) -> dict[str, tuple]:
    """Everything below *root*, by path: kind, mode, time, what a link says or a file holds, names of the same inode."""
    found = {}
    inodes: dict[int, list[str]] = {}
    for above, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(above) / name
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            held = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
            below = str(path.relative_to(root))
            if kind == stat.S_IFREG:
                inodes.setdefault(status.st_ino, []).append(below)
            xattrs = {each: os.getxattr(path, each) for each in os.listxattr(path, follow_symlinks=False)}
            found[below] = (kind, stat.S_IMODE(status.st_mode), status.st_mtime_ns, held, xattrs)
    groups = {frozenset(names) for names in inodes.values() if len(names) > 1}
    return {**found, "same inode": groups}


@pytest.fixture
def outside(tmp_path) -> Path:
    """A directory that no tree may lead to."""
    write(tmp_path / "outside", {"secret": SECRET, "d/kept": b"kept"})
    return tmp_path / "outside"


@pytest.fixture
def local(tmp_path, outside) -> Path:
    """A directory with one of everything that a copy is apt to lose."""
    root = tmp_path / "local"
    write(root, {"bin/run.sh": b"#!/bin/sh\n", "deep/er/file": b"x" * 5000, "empty/": b"", "private/key": b"k"})
    (root / "bin" / "run.sh").chmod(0o755)
    (root / "private" / "key").chmod(0o400)
    (root / "none").write_bytes(b"")
    os.link(root / "deep" / "er" / "file", root / "again")
    (root / "to_file").symlink_to("bin/run.sh")
    (root / "to_directory").symlink_to("deep/er")
    (root / "to_itself").symlink_to("to_itself")
    (root / "deep" / "to_root").symlink_to("..")
    (root / "nowhere").symlink_to("nothing/here")
    (root / "abroad").symlink_to(outside / "secret")
    (root / "up").symlink_to("../outside/d")
    os.mkfifo(root / "fifo", 0o620)
    (root / "sparse").touch()
    os.truncate(root / "sparse", 9 << 20)
    os.setxattr(root / "none", "user.note", b"kept")
    (root / "empty").chmod(0o750)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(0, 1_600_000_000_123_456_789 + number), follow_symlinks=False)
    return root


def versions(name: str) -> int:
    """How many versions the volume's line has."""
    head = Volume.from_name_sync(name).committed
    assert head is not None
    return len(head.log_sync())


def mounted(name: str, path: Path) -> dict[str, tuple]:
    """What another door shows of a directory of a volume's head."""
    head = Volume.from_name_sync(name).committed
    assert head is not None
    with head.mounted_sync(driver="copy") as root:
        return look(root / path)


def test_a_directory_goes_in_and_comes_out_as_it_is(local, tmp_path, outside):
    before = look(local)
    fs = VolumeFileSystem()

    fs.put(str(local), "fresh/d", recursive=True)
    assert 1 == versions("fresh")
    fs.get("fresh/d", str(tmp_path / "out"), recursive=True)

    assert before == look(tmp_path / "out") == mounted("fresh", Path("d"))
    assert (tmp_path / "out" / "sparse").stat().st_blocks < 100, "holes stay holes"
    assert SECRET not in fs.cat("fresh", recursive=True, on_error="omit").values()
    assert before == look(local)
    assert [SECRET, b"kept"] == [(outside / "secret").read_bytes(), (outside / "d" / "kept").read_bytes()]


def test_by_coroutines_too(local, tmp_path):
    async def work() -> None:
        fs = VolumeFileSystem(asynchronous=True)
        await fs._put(local, "fresh", recursive=True)
        await fs._get("vol://fresh/", tmp_path / "out", recursive=True)

    asyncio.run(work())

    assert look(local) == look(tmp_path / "out")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/\0*?[\\"), min_size=1, max_size=9).filter(
    lambda name: name not in {".", ".."} and len(name.encode()) < 200
)
LEAVES = st.one_of(st.binary(max_size=9), st.tuples(st.just("link"), st.text("ab./", min_size=1, max_size=6)))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8)


def make(path: Path, tree: object, mode: int) -> None:
    """Make what *tree* says at *path*."""
    match tree:
        case bytes():
            path.write_bytes(tree)
            path.chmod(mode)
        case ("link", str() as target):
            path.symlink_to(target)
        case dict():
            path.mkdir()
            for name, inner in tree.items():
                make(path / name, inner, mode)
            path.chmod(mode | 0o700)


@settings(max_examples=25)
@given(tree=st.dictionaries(NAMES, TREES, max_size=4), mode=st.sampled_from([0o400, 0o644, 0o751, 0o777]))
def test_any_tree_comes_back(tmp_path_factory, tree, mode):
    tmp_path = tmp_path_factory.mktemp("any")
    make(tmp_path / "in", tree, mode)
    fs = VolumeFileSystem(bucket=f"memory://{tmp_path}")

    fs.put(f"{tmp_path}/in/", "any/d", recursive=True)
    fs.get("any/d", f"{tmp_path}/out", recursive=True)

    assert look(tmp_path / "in") == look(tmp_path / "out")


@pytest.mark.parametrize(("first", "second"), [("links/*", "dirs/*"), ("links/*", "dirs/d"), ("links/*", "dirs/**")])
def test_a_link_that_one_volume_has_brought_leads_no_other_out_of_the_destination(tmp_path, outside, first, second):
    write(tmp_path / "two", {"d/secret": b"theirs", "d/new": b"theirs", "other": b""})
    write(tmp_path / "one", {"mine": b""})
    (tmp_path / "one" / "d").symlink_to(outside)
    fs = VolumeFileSystem()
    fs.put(f"{tmp_path}/one/", "links", recursive=True)
    fs.put(f"{tmp_path}/two/", "dirs", recursive=True)
    (tmp_path / "out").mkdir()
    fs.get(first, f"{tmp_path}/out/", recursive=True)

    with pytest.raises(FileExistsError, match="is no directory"):
        fs.get(second, f"{tmp_path}/out/", recursive=True)

    assert ["d", "secret"] == sorted(os.listdir(outside))
    assert SECRET == (outside / "secret").read_bytes()


def test_a_link_that_the_caller_has_named_is_followed(tmp_path, outside):
    write(tmp_path / "local", {"new": b"new"})
    fs = VolumeFileSystem()
    fs.put(f"{tmp_path}/local/", "fresh", recursive=True)
    (tmp_path / "out").symlink_to(outside)

    fs.get("fresh/*", f"{tmp_path}/out/", recursive=True)

    assert b"new" == (outside / "new").read_bytes()


def test_a_file_comes_out_though_its_name_is_as_long_as_names_can_be(tmp_path):
    name = "n" * 255
    write(tmp_path / "local", {name: b"long", "other": b""})
    fs = VolumeFileSystem()
    fs.put(f"{tmp_path}/local/", "fresh", recursive=True)
    (tmp_path / "out").mkdir()

    fs.get("fresh/*", f"{tmp_path}/out/", recursive=True)

    assert b"long" == (tmp_path / "out" / name).read_bytes()
    assert {name, "other"} == set(os.listdir(tmp_path / "out"))


def test_nothing_is_written_through_a_link_of_the_destination(tmp_path, outside):
    committed("data", {"a": b"new", "d/kept": b"new"})
    fs = VolumeFileSystem()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").symlink_to(outside / "secret")
    fs.get("data/", str(tmp_path / "out"), recursive=True)
    assert b"new" == (tmp_path / "out" / "a").read_bytes() and not (tmp_path / "out" / "a").is_symlink()

    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d").symlink_to(outside / "d")
    with pytest.raises(FileExistsError, match="is no directory"):
        fs.get("data/", str(tmp_path / "more"), recursive=True)

    assert ["d"] == os.listdir(tmp_path / "more")
    assert [SECRET, b"kept"] == [(outside / "secret").read_bytes(), (outside / "d" / "kept").read_bytes()]


def test_what_is_there_is_merged(tmp_path):
    committed("data", TREE)
    fs = VolumeFileSystem()
    out = tmp_path / "out"
    write(out, {"a.txt": b"older and longer", "d/mine": b"mine", "mine": b"mine"})
    out.chmod(0o1777)

    fs.get("data/", str(out), recursive=True)
    fs.get("data/d", str(out), recursive=True)  # into it, by its name: that is there already

    assert b"a" == (out / "a.txt").read_bytes() and b"mine" == (out / "mine").read_bytes()
    assert ["b.txt", "e", "mine"] == sorted(os.listdir(out / "d"))
    assert 0o1777 == stat.S_IMODE(out.stat().st_mode), "the caller's own directory keeps its mode"
    write(tmp_path / "bad", {"d": b"a file where the volume has a directory", "x": b""})
    with pytest.raises(FileExistsError):
        fs.get("data/", str(tmp_path / "bad"), recursive=True)
    with pytest.raises(NotADirectoryError):
        fs.get("data/d", str(tmp_path / "bad" / "x"), recursive=True)
    assert ["d", "x"] == sorted(os.listdir(tmp_path / "bad"))


def test_a_download_that_fails_leaves_nothing(tmp_path, monkeypatch):
    committed("data", TREE)
    fs = VolumeFileSystem()
    (tmp_path / "there").mkdir()

    def fail(*_arguments):
        raise StorageError("the store is gone")

    monkeypatch.setattr(Reader, "read", fail)
    for target in (tmp_path / "new", tmp_path / "there"):
        with pytest.raises(OSError, match="the store is gone"):
            fs.get("data/", str(target), recursive=True)

    assert [] == os.listdir(tmp_path / "there")
    assert "new" not in " ".join(os.listdir(tmp_path))


def test_what_goes_in_replaces_files_and_merges_directories(tmp_path):
    committed("data", {**TREE, "d/mine": b"mine"})
    fs = VolumeFileSystem()
    write(tmp_path / "in", {"d/b.txt": b"new", "d/more": b"", "empty/x": b""})

    fs.put(str(tmp_path / "in") + "/", "data", recursive=True)
    assert 2 == versions("data")
    assert {"b.txt", "e", "mine", "more"} == {name.removeprefix("data/d/") for name in fs.ls("data/d", detail=False)}
    assert b"new" == fs.cat("data/d/b.txt")

    write(tmp_path / "worse", {"a.txt/x": b"", "z": b""})
    write(tmp_path / "wrong", {"d": b"", "z": b""})
    for name, kind in [("worse", NotADirectoryError), ("wrong", IsADirectoryError)]:
        with pytest.raises(kind):
            fs.put(str(tmp_path / name) + "/", "data", recursive=True)
    with pytest.raises(NotADirectoryError):
        fs.put(str(tmp_path / "in"), "data/a.txt", recursive=True)
    with pytest.raises(FileExistsError):
        fs.put(str(tmp_path / "in") + "/", "data", recursive=True, mode="create")
    with pytest.raises(FileNotFoundError):
        fs.put(str(tmp_path / "nothing"), "data", recursive=True)
    with pytest.raises(OSError, match="fixed version"):
        fs.put(str(tmp_path / "in"), f"data~{Volume.from_name_sync('data').committed.version}/x", recursive=True)
    assert 2 == versions("data") and not fs.exists("data/z")


def test_in_a_transaction_a_directory_is_what_it_was_when_it_was_put(local, tmp_path):
    before = look(local)
    fs = VolumeFileSystem()

    with fs.transaction:
        fs.put(str(local), "fresh/d", recursive=True)
        fs.put(str(local / "bin" / "run.sh"), "fresh/run.sh")
        (local / "bin" / "run.sh").write_bytes(b"changed since")
        (local / "deep" / "er" / "file").unlink()
        fs.pipe_file("fresh/d/more", b"1")
        fs.get("fresh/d", str(tmp_path / "early"), recursive=True)
        assert b"x" * 5000 == fs.cat("fresh/d/deep/er/file")

    (tmp_path / "early" / "more").unlink()
    assert before == look(tmp_path / "early"), "what is written in it is read in it"
    fs.rm("fresh/d/more")
    assert before == mounted("fresh", Path("d"))
    assert 0o100755 == fs.info("fresh/run.sh")["mode"] and 2 == versions("fresh")
    assert [] == [path for path in (State.default().root / "staging").rglob("*") if path.name != "lock"]


def test_a_directory_that_does_not_hold_still_is_busy_in_a_transaction(tmp_path):
    write(tmp_path / "in", {f"{number:03}": b"x" * 4096 for number in range(300)})
    fs = VolumeFileSystem()
    done = threading.Event()

    def go_on() -> None:
        number = 0
        while not done.is_set():
            (tmp_path / "in" / "000").write_bytes(b"%d" % number)
            number += 1

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        with pytest.raises(OSError, match="stop what writes to it") as caught, fs.transaction:
            fs.put(str(tmp_path / "in"), "fresh/d", recursive=True)
    finally:
        done.set()
        writer.join()

    assert 16 == caught.value.errno  # EBUSY
    assert not fs.exists("fresh")


def test_patterns_take_what_they_name_as_it_is(local, tmp_path):
    (local / "fifo").unlink()
    before = look(local)
    fs = VolumeFileSystem()

    fs.put(f"{local}/*", "fresh/d/", recursive=True)
    assert 1 == versions("fresh")
    fs.get("fresh/d/*", str(tmp_path / "out") + "/", recursive=True)

    after = look(tmp_path / "out")
    for each in (before, after):
        del each["same inode"]  # each name is put by itself
    assert before == after == {name: mounted("fresh", Path("d"))[name] for name in before}
    with pytest.raises(FileNotFoundError):
        fs.get("fresh/x*", str(tmp_path), recursive=True)
    with pytest.raises(FileNotFoundError):
        fs.put(f"{local}/x*", "fresh", recursive=True)


def test_what_is_there_as_it_is_written_is_no_pattern(tmp_path):
    write(tmp_path / "run[lr=0.1]*", {"[1]": b"1"})
    fs = VolumeFileSystem()

    fs.put(f"{tmp_path}/run[lr=0.1]*", "fresh/run[1]?", recursive=True)
    fs.get("fresh/run[1]?", f"{tmp_path}/out[2]", recursive=True)

    assert {"[1]"} == {path.name for path in (tmp_path / "out[2]").iterdir()}


def test_what_is_named_is_followed_and_what_it_holds_is_not(local, tmp_path):
    fs = VolumeFileSystem()
    (tmp_path / "named").symlink_to(local)
    fs.put(str(tmp_path / "named"), "fresh/d", recursive=True)

    fs.get("fresh/d/to_directory", str(tmp_path / "one"), recursive=True)
    fs.get("fresh/d/to_file", str(tmp_path / "two"), recursive=True)

    assert look(local) == mounted("fresh", Path("d"))
    assert [5000] == [path.stat().st_size for path in (tmp_path / "one").iterdir()]
    assert b"#!/bin/sh\n" == (tmp_path / "two").read_bytes() and os.access(tmp_path / "two", os.X_OK)
    for name in ("abroad", "nowhere", "to_itself", "nothing"):
        with pytest.raises((FileNotFoundError, OSError)):
            fs.get(f"fresh/d/{name}", str(tmp_path / "three"), recursive=True)
    assert not (tmp_path / "three").exists(), "a link of a volume leads within the volume"


def test_a_store_comes_out_with_its_volumes(tmp_path):
    committed("data", TREE)
    committed("other", {"x": b"1"})
    fs = VolumeFileSystem()

    fs.get("vol://", str(tmp_path / "out"), recursive=True)

    assert ["data", "other"] == sorted(os.listdir(tmp_path / "out"))
    assert b"bb" == (tmp_path / "out" / "data" / "d" / "b.txt").read_bytes()


def test_who_listens_is_told_how_many_files_are_done(local, tmp_path):
    fs = VolumeFileSystem()
    count = sum(not path.is_dir() or path.is_symlink() for path in local.rglob("*"))
    up, down = Callback(), Callback()

    fs.put(str(local), "fresh/d", recursive=True, callback=up)
    fs.get("fresh/d", str(tmp_path / "out"), recursive=True, callback=down)

    assert (count, count) == (up.size, up.value) == (down.size, down.value)


def test_one_file_keeps_its_mode_and_time_both_ways(tmp_path):
    (tmp_path / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o751)
    os.utime(tmp_path / "run.sh", ns=(0, 1_600_000_000_123_456_789))
    fs = VolumeFileSystem()

    fs.put(str(tmp_path / "run.sh"), "fresh/run.sh")
    fs.get("fresh/run.sh", str(tmp_path / "again.sh"))

    status = (tmp_path / "again.sh").stat()
    assert (0o751 & ~os.umask(os.umask(0)) & 0o777, 1_600_000_000_123_456_789) == (
        stat.S_IMODE(status.st_mode),
        status.st_mtime_ns,
    )
    (tmp_path / "run.sh").chmod(0o400)
    fs.put(str(tmp_path / "run.sh"), "fresh/run.sh")
    with fs.open("fresh/run.sh", "ab") as file:
        file.write(b"echo\n")
    assert b"#!/bin/sh\necho\n" == fs.cat("fresh/run.sh") and 0o100400 == fs.info("fresh/run.sh")["mode"]


def test_file_systems_that_differ_only_in_how_they_are_called_read_the_same(tmp_path):
    version = committed("data", {"a": b"1"})
    fs, others = VolumeFileSystem(), []

    async def write_and_look() -> None:
        other = VolumeFileSystem(asynchronous=True, loop=asyncio.get_running_loop())
        others.append(other)
        await other._pipe_file("data/b", b"2")

    assert not fs.exists("data/b")
    thread = threading.Thread(target=lambda: asyncio.run(write_and_look()))
    thread.start()
    thread.join()
    assert fs is not others[0] and fs.exists("data/b")

    alone, differing = VolumeFileSystem(skip_instance_cache=True), VolumeFileSystem(message="another")
    assert alone.exists("data/b") and differing.exists("data/b")
    fs.pipe_file("data/c", b"3")
    assert [False, False] == [alone.exists("data/c"), differing.exists("data/c")]
    committed("data", {"d": b""})
    assert not asyncio.run(others[0]._exists("data/d"))
    fs.invalidate_cache()
    assert asyncio.run(others[0]._exists("data/d"))
    assert [f"data~{version.version}/a"] == [
        name.rpartition("/-/")[2] for name in fs.ls(url_of(version.locator), detail=False)
    ]


def test_a_coroutine_may_open_a_file_with_all_that_a_caller_may_ask(tmp_path):
    committed("data", TREE)

    async def read() -> bytes:
        fs = VolumeFileSystem()
        options = {"cache_type": "readahead", "cache_options": None, "block_size": None, "compression": None}
        async with await fs.open_async("vol://data/big.bin", "rb", **options) as file:
            first = await file.read(3)
            return first + await file.read()

    assert TREE["big.bin"] == asyncio.run(read())


AS_A_USER = """
import os, stat, sys
from volume_core.fs import VolumeFileSystem
source, out = sys.argv[1:]
fs = VolumeFileSystem()
fs.put(source, "mine/d", recursive=True)
with fs.transaction:
    fs.put(source, "mine/again", recursive=True)
os.mkdir(out)
for _ in range(2):
    fs.get("mine/again/", out, recursive=True)
    fs.get("mine/d", out, recursive=True)
for name in ["closed", "d/closed", "d/closed/file", "d/private"]:
    print(name, oct(stat.S_IMODE(os.stat(f"{out}/{name}").st_mode)), open(f"{out}/closed/file").read())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_user_who_owns_what_is_closed_puts_gets_and_replaces_it():
    with tempfile.TemporaryDirectory(prefix="volume-test-") as made:
        root = Path(made)
        root.chmod(0o777)
        write(root / "in", {"closed/file": b"x", "private": b"y"})
        for name, mode in {"closed/file": 0o444, "closed": 0o555, "private": 0o400, "": 0o755}.items():
            (root / "in" / name).chmod(mode)
            os.chown(root / "in" / name, NOBODY, NOBODY)
        environment = os.environ | {"VOLUME_STATE_DIR": f"{root}/state", "HOME": f"{root}"}
        command = as_nobody([sys.executable, "-c", AS_A_USER, f"{root}/in", f"{root}/out"])
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    assert 0 == ran.returncode, ran.stderr
    assert ["closed 0o555 x", "d/closed 0o555 x", "d/closed/file 0o444 x", "d/private 0o400 x"] == (
        ran.stdout.splitlines()
    )
