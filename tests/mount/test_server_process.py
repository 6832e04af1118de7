"""The server as a process: many readers, signals, handles, what it uses while idle, and how it ends."""

from __future__ import annotations

import ctypes
import filecmp
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_kit import DEADLINE_S, Gate, Version, eventually, mounted

pytestmark = pytest.mark.fuse

MIB = 1 << 20


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    return root


def small_files(directory: Path, count: int, size: int = 3000) -> None:
    directory.mkdir(exist_ok=True)
    for number in range(count):
        (directory / f"{number:04}").write_bytes(number.to_bytes(4) * (size // 4))


def test_64_parallel_readers(tmp_path, tree):
    small_files(tree / "small", 200)
    for number in range(4):
        (tree / f"large{number}").write_bytes(os.urandom(6 * MIB))
    version = Version(tmp_path, tree)

    with mounted(tmp_path, version) as mount:
        paths = [path.relative_to(tree) for path in tree.rglob("*") if path.is_file()]

        def compare(reader: int) -> list[Path]:
            mine = paths[reader::8] + paths[: reader % 8]
            return [path for path in mine if not filecmp.cmp(tree / path, mount.path / path, shallow=False)]

        with ThreadPoolExecutor(64) as readers:
            assert [[]] * 64 == list(readers.map(compare, range(64)))


def test_64_parallel_readers_of_a_store_far_away(tmp_path, tree):
    for number in range(64):
        (tree / f"{number:02}").write_bytes(os.urandom(300_000))
    version, gate = Version(tmp_path, tree), Gate(tmp_path)

    with mounted(tmp_path, version, store=gate.url(version), environ=gate.environ) as mount:
        gate.shut()
        with ThreadPoolExecutor(64) as readers:
            names = sorted(os.listdir(tree))
            found = readers.map(lambda name: (mount.path / name).read_bytes() == (tree / name).read_bytes(), names)
            eventually(gate.calls, "a read reaches the store")
            # While reads wait for the store, the loop answers everything else.
            assert names == sorted(os.listdir(mount.path))
            assert 300_000 == os.stat(mount.path / "63").st_size
            gate.open()
            assert [True] * 64 == list(found)
        # One fetch brings the neighbours: far fewer calls than files.
        assert len(gate.calls()) == len(set(gate.calls())) < 16


def test_a_reader_that_waits_can_be_interrupted(tmp_path, tree):
    """A direct read waits for its own request, so that only the answer to its INTERRUPT lets it go."""
    (tree / "f").write_bytes(bytes(8192))
    version, gate = Version(tmp_path, tree), Gate(tmp_path)
    gate.shut()

    with mounted(tmp_path, version, store=gate.url(version), environ=gate.environ) as mount:
        code = (
            f"import mmap, os; fd = os.open({os.fspath(mount.path / 'f')!r}, os.O_RDONLY | os.O_DIRECT)\n"
            "os.readv(fd, [mmap.mmap(-1, 4096)])"
        )
        reader = subprocess.Popen([sys.executable, "-c", code])
        eventually(gate.calls, "the read reaches the store")
        reader.terminate()

        assert -signal.SIGTERM == reader.wait(DEADLINE_S)
        gate.open()
        assert bytes(8192) == (mount.path / "f").read_bytes()


def test_a_node_is_found_again_by_its_handle(tmp_path, tree):
    """A file handle outlives what the kernel remembers: it asks for "." by number."""
    (tree / "d").mkdir()
    (tree / "d" / "f").write_bytes(b"content")
    libc = ctypes.CDLL(None, use_errno=True)

    class Handle(ctypes.Structure):
        _fields_ = [("size", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        handle, mount_id = Handle(128), ctypes.c_int()
        path = os.fsencode(mount.path / "d" / "f")
        assert 0 == libc.name_to_handle_at(-100, path, ctypes.byref(handle), ctypes.byref(mount_id), 0)
        root = os.open(mount.path, os.O_RDONLY)
        fd = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
        assert b"content" == os.read(fd, 100)
        os.close(fd)
        os.close(root)


def test_an_idle_server_uses_no_cpu(tmp_path, tree):
    small_files(tree, 50)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        for path in mount.path.iterdir():
            path.read_bytes()

        def cpu_ticks() -> int:
            fields = Path(f"/proc/{mount.server.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])

        def switches() -> int:
            return int(
                Path(f"/proc/{mount.server.pid}/status").read_text().partition("ntary_ctxt_switches:")[2].split()[0]
            )

        before, slept = cpu_ticks(), switches()
        threading.Event().wait(0.3)

        assert cpu_ticks() - before <= 1
        assert switches() - slept <= 1


def test_unmounting_ends_the_server_and_what_it_started(tmp_path, tree):
    small_files(tree, 10)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        os.listdir(mount.path)
        children = Path(f"/proc/{mount.server.pid}/task/{mount.server.pid}/children").read_text().split()
        assert 1 == len(children)
    eventually(lambda: not Path(f"/proc/{children[0]}").exists(), "the pusher is gone")


def test_a_server_that_is_told_nonsense_says_so(tmp_path, tree):
    config = tmp_path / "config.json"
    config.write_text('{"fuse_fd": 0, "layers": [], "store": "file:///x", "colour": "red"}')
    done = subprocess.run(
        [sys.executable, "-m", "volume_core.mount.server", config], capture_output=True, text=True, check=False
    )

    assert 1 == done.returncode
    assert "colour" in done.stderr


def test_descriptors_are_not_leaked_to_the_pusher(tmp_path, tree):
    ours, theirs = socket.socketpair()
    with ours, theirs, mounted(tmp_path, Version(tmp_path, tree)) as mount:
        os.listdir(mount.path)
        child = Path(f"/proc/{mount.server.pid}/task/{mount.server.pid}/children").read_text().split()[0]
        eventually(lambda: len(os.listdir(f"/proc/{child}/fd")) == 5, "its stdio, its queue, its channel")
