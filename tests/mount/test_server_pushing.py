"""Neighbours of what is read are in the page cache before they are asked for, and only they."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_kit import DEADLINE_S, Gate, Version, eventually, mounted

from volume_core.mount import pushing
from volume_core.mount.pushing import FILE_BYTES_MAX, FILES_MAX, STREAK, Pusher, ServerGone, Touches
from volume_core.parts.indexes import open_view
from volume_core.parts.reading import Reader
from volume_core.storage.local import LocalStore
from volume_core.testing.oracle import assert_same_tree


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    return root


def fill(directory: Path, count: int, size: int = 1000) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"{number:04}").write_bytes(number.to_bytes(4) * (size // 4))


class Pushed(Pusher):
    """A Pusher that writes down what it would push, of a version, and is told by the test."""

    def __init__(self, version: Version, unknown: frozenset[str] = frozenset()) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.view = open_view([version.index])
        self.names: list[str] = []
        self.unknown = {self.view.resolve(os.fsencode(path)).number for path in unknown}
        self.paths = {node.number: os.fsdecode(node.path) for node in self.view.walk()}
        self.content: dict[str, bytes] = {}
        self.meanwhile: dict[str, str] = {}  # when this one is pushed, that one is read
        super().__init__(-1, theirs, self.view, Reader(LocalStore(version.root)).read_neighbours)

    def _store(self, number: int, data: bytes | memoryview) -> bool:
        if number in self.unknown:
            return False
        self.names.append(self.paths[number])
        self.content[self.paths[number]] = bytes(data)
        if (path := self.meanwhile.get(self.names[-1])) is not None:
            self.ours.send(os.fsencode(path))
        return True

    def read(self, *paths: str) -> list[str]:
        """The reader has read *paths*; return what is pushed for it."""
        self.names = []
        for path in paths:
            self._follow(os.fsencode(path))
        return self.names

    def close(self) -> None:
        self.ours.close()
        self._channel.close()
        self.view.close()


@pytest.fixture
def pushed(tmp_path, tree):
    made: list[Pushed] = []

    def make(*unknown: str) -> Pushed:
        made.append(Pushed(Version(tmp_path, tree), frozenset(unknown)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def names(first: int, last: int, but: tuple[int, ...] = ()) -> list[str]:
    return [f"d/{number:04}" for number in range(first, last + 1) if number not in but]


def test_a_window_follows_what_was_read_but_for_its_marker(tree, pushed):
    fill(tree / "d", 100)
    pusher = pushed()

    assert names(6, 21, but=(9,)) == pusher.read("d/0005")
    assert all((tree / path).read_bytes() == data for path, data in pusher.content.items())


def test_the_marker_brings_the_next_window_twice_as_large(tree, pushed):
    fill(tree / "d", 2000)
    pusher = pushed()
    pusher.read("d/0005")

    assert [] == pusher.read("d/0007")  # it was asked for while it was pushed
    assert names(22, 53, but=(29,)) == pusher.read("d/0009")
    assert names(54, 117, but=(69,)) == pusher.read("d/0029")
    pusher.read("d/0069")
    assert FILES_MAX - 1 == len(pusher.read(f"d/{117 + 128 // 4:04}"))
    assert FILES_MAX - 1 == len(pusher.read(f"d/{245 + 256 // 4:04}"))


def test_a_reader_that_outran_the_pusher_is_met_ahead(tree, pushed):
    fill(tree / "d", 100)
    pusher = pushed()
    pusher.read("d/0005")

    assert "d/0044" == pusher.read("d/0040")[0]  # 41 to 43 it is asking for already


def test_a_marker_that_is_read_while_its_window_is_pushed_brings_the_next(tree, pushed):
    fill(tree / "d", 1000)
    pusher = pushed()
    pusher.meanwhile = {"d/0012": "d/0009", "d/0040": "d/0028"}

    assert names(6, 21, but=(9,)) + names(22, 53, but=(29,)) == pusher.read("d/0005")
    assert names(54, 117, but=(69,)) == pusher.read("d/0029")


def test_another_reader_is_heard_before_the_next_window(tree, pushed):
    fill(tree / "c", 20)
    fill(tree / "d", 1000)
    pusher = pushed()
    pusher.meanwhile = {"d/0010": "c/0000", "d/0012": "d/0009"}

    assert names(6, 21, but=(9,)) == pusher.read("d/0005")
    assert [b"c/0000"] == list(pusher._later)


def test_the_end_of_a_directory_ends_it(tree, pushed):
    fill(tree / "d", 10)
    pusher = pushed()

    assert names(3, 9, but=(6,)) == pusher.read("d/0002")
    assert [] == pusher.read("d/0009")


def test_the_next_directory_begins_where_the_last_one_ended(tree, pushed):
    fill(tree / "c", 60)
    fill(tree / "d", 100)
    pusher = pushed()
    pusher.read("c/0000", "c/0004", "c/0024")

    assert names(1, 99, but=(32,)) == pusher.read("d/0000")


def test_large_files_and_other_kinds_are_left_out(tree, pushed):
    fill(tree / "d", 6)
    (tree / "d" / "0002").write_bytes(bytes(FILE_BYTES_MAX + 1))
    (tree / "d" / "0003").write_bytes(b"")
    os.unlink(tree / "d" / "0004")
    os.symlink("0001", tree / "d" / "0004")

    assert names(1, 5, but=(2, 3, 4)) == pushed().read("d/0000")


def test_a_node_that_the_kernel_does_not_know_stops_it_for_a_while(tree, pushed):
    fill(tree / "d", 400)
    pusher = pushed("d/0003")

    assert names(1, 2) == pusher.read("d/0000")
    assert [] == pusher.read(*names(4, 4 + 63))
    assert [] != pusher.read("d/0080")


def test_names_of_a_vanished_path_are_ignored(tree, pushed):
    fill(tree / "d", 4)

    assert [] == pushed().read("nowhere/0000", "d/nothing")


def test_bytes_that_are_not_here_are_not_pushed(tmp_path, tree):
    fill(tree / "d", 10)
    version = Version(tmp_path, tree)
    version.packs()[0].unlink()
    pusher = Pushed(version)

    assert [] == pusher.read("d/0000")
    pusher.close()


def test_it_ends_when_the_server_does(tree, pushed):
    fill(tree / "d", 10)
    pusher = pushed()
    pusher.ours.send(b"d/0000")
    pusher.ours.send(b"d/0001")
    pusher.ours.close()

    with pytest.raises(ServerGone):
        pusher.run(b"d/0000")


# What the loop tells.


class Told(Touches):
    def __init__(self, version: Version) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.view = open_view([version.index])
        super().__init__(ours)

    def read(self, *paths: str) -> list[bool]:
        return [self.touched(self.view.resolve(os.fsencode(path))) for path in paths]

    def __enter__(self) -> Told:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.theirs.close()
        self.view.close()


def test_a_few_reads_in_order_are_told(tmp_path, tree):
    fill(tree / "d", 20)

    with Told(Version(tmp_path, tree)) as told:
        assert [False] * (STREAK - 1) + [True] * 2 == told.read(*names(0, STREAK))
        assert b"d/%04d" % (STREAK - 1) == told.theirs.recv(100)


def test_readers_of_several_directories_are_told_apart(tmp_path, tree):
    for directory in range(4):
        fill(tree / f"{directory}", 2 * FILES_MAX + 10)

    with Told(Version(tmp_path, tree)) as told:
        found = [told.read(*(f"{directory}/{number:04}" for directory in range(4))) for number in range(STREAK)]

        assert [[False] * 4] * (STREAK - 1) + [[True] * 4] == found


def test_jumping_about_is_not_told(tmp_path, tree):
    fill(tree / "d", 4000, 4)

    with Told(Version(tmp_path, tree)) as told:
        assert not any(told.read(*(f"d/{number * 1571 % 4000:04}" for number in range(8))))


def test_large_files_are_not_told(tmp_path, tree):
    fill(tree / "d", 5, FILE_BYTES_MAX + 4)

    with Told(Version(tmp_path, tree)) as told:
        assert not any(told.read(*names(0, 4)))


def test_a_pusher_that_is_behind_never_makes_the_loop_wait(tmp_path, tree):
    fill(tree / "d", 20)

    with Told(Version(tmp_path, tree)) as told, ThreadPoolExecutor(1) as thread:
        told.read(*names(0, 3))
        for _ in range(5000):
            told._tell(b"x" * 4000)
        assert thread.submit(told._tell, b"d/0004").result(DEADLINE_S)


@pytest.mark.loud
def test_a_pusher_that_died_is_not_told_any_more(tmp_path, tree):
    fill(tree / "d", 20)

    with Told(Version(tmp_path, tree)) as told:
        told.theirs.close()
        told.read(*names(0, 3))

        assert [False] == told.read("d/0004")


# With the kernel.


def cached(path: Path, thread: ThreadPoolExecutor) -> bytes:
    """Read a file while the server is stopped: only what is in the page cache comes."""

    def read() -> bytes:
        fd = os.open(path, os.O_RDONLY)
        try:
            return os.read(fd, 100_000)
        finally:
            os.close(fd)

    return thread.submit(read).result(DEADLINE_S)


@pytest.mark.fuse
def test_neighbours_are_read_without_the_server(tmp_path, tree):
    fill(tree / "d", 60, 5000)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, ThreadPoolExecutor(1) as thread:
        for name in sorted(os.listdir(mount.path / "d")):
            os.stat(mount.path / "d" / name)
        for number in range(STREAK):
            (mount.path / "d" / f"{number:04}").read_bytes()
        child = Path(f"/proc/{mount.server.pid}/task/{mount.server.pid}/children").read_text().split()[0]
        wait_until_asleep(child)
        mount.server.signal(signal.SIGSTOP)
        try:
            for number in (STREAK + 6, STREAK + 8, STREAK + 10):
                path = f"{number:04}"
                assert (tree / "d" / path).read_bytes() == cached(mount.path / "d" / path, thread)
        finally:
            mount.server.signal(signal.SIGCONT)


def wait_until_asleep(pid: str) -> None:
    """Wait until the pusher has nothing left to do: asleep in two looks, and no CPU used between."""

    def used() -> tuple[str, str, str]:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        switches = Path(f"/proc/{pid}/status").read_text().partition("ntary_ctxt_switches:")[2].split()[0]
        return fields[0], switches, Path(f"/proc/{pid}/wchan").read_text()

    seen: list[tuple[str, str, str]] = []

    def is_asleep() -> bool:
        seen.append(used())
        return len(seen) > 20 and seen[-1][0] == "S" and len(set(seen[-20:])) == 1

    eventually(is_asleep, "the pusher is done")


@pytest.mark.fuse
def test_reading_through_a_tree_gives_every_byte(tmp_path, tree):
    for directory in range(6):
        fill(tree / f"d{directory}", 180, 1000 + 4 * directory)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, ThreadPoolExecutor(4) as threads:
        list(
            threads.map(
                lambda number: [p.read_bytes() for p in sorted((mount.path / f"d{number}").iterdir())], range(6)
            )
        )
        assert_same_tree(tree, mount.path)
        assert "" == mount.text()


@pytest.mark.fuse
def test_a_store_far_away_is_not_asked_for_guesses(tmp_path, tree):
    fill(tree / "d", 40, 100_000)
    version, gate = Version(tmp_path, tree), Gate(tmp_path)
    far = {"store": gate.url(version), "environ": gate.environ, "cache_dir": os.fspath(tmp_path / "cache")}

    with mounted(tmp_path, version, **far) as mount:
        assert_same_tree(tree, mount.path)
        assert len(set(gate.calls())) == len(gate.calls())


@pytest.mark.fuse
def test_it_can_be_switched_off(tmp_path, tree):
    fill(tree / "d", 40)

    with mounted(tmp_path, Version(tmp_path, tree), push=False) as mount:
        assert_same_tree(tree, mount.path)
        assert "" == Path(f"/proc/{mount.server.pid}/task/{mount.server.pid}/children").read_text()


@pytest.mark.fuse
def test_without_a_queue_of_its_own_nothing_is_pushed(tmp_path):
    """A descriptor that is no mount's cannot be cloned: the server goes on without."""
    with open(tmp_path / "no-mount", "wb") as file:
        assert pushing.start(file.fileno(), lambda: open_view([]), lambda files: []) is None
