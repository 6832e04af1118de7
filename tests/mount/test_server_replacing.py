"""A server that dies under a live mount is replaced, and whoever uses the mount does not see it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from server_kit import DEADLINE_S, Gate, Version, eventually, mounted

from volume_core.mount import protocol as fuse
from volume_core.mount import server as module
from volume_core.mount.server import ask_again
from volume_core.mount.syscalls import kernel_release
from volume_core.parts.indexes import open_view
from volume_core.testing.oracle import describe

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(kernel_release() < (6, 9), reason="the kernel cannot resend requests before 6.9"),
]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    root.mkdir()
    return root


def fill(tree: Path, directories: int = 8, files: int = 60) -> None:
    for directory in range(directories):
        (tree / f"d{directory}").mkdir()
        for number in range(files):
            (tree / f"d{directory}" / f"{number:03}").write_bytes(os.urandom(2000 + number))


def test_a_read_in_flight_is_answered_by_the_next_server(tmp_path, tree):
    (tree / "f").write_bytes(b"content" * 1000)
    version, gate = Version(tmp_path, tree), Gate(tmp_path)
    gate.shut()

    with (
        mounted(tmp_path, version, store=gate.url(version), environ=gate.environ) as mount,
        ThreadPoolExecutor(1) as thread,
    ):
        mount.learn_flush("f")
        reading = thread.submit((mount.path / "f").read_bytes)
        eventually(gate.calls, "the read reaches the store")
        mount.server.kill()
        assert not reading.done()
        mount.replace()
        eventually(lambda: len(gate.calls()) == 2, "the next server asks the store")
        gate.open()

        assert b"content" * 1000 == reading.result(DEADLINE_S)


def test_a_server_that_hangs_can_be_replaced(tmp_path, tree):
    """Stopped, it has requests in its queue and answers none of them."""
    fill(tree, 2, 20)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, ThreadPoolExecutor(3) as threads:
        mount.learn_flush("d0/000")
        mount.server.signal(signal.SIGSTOP)
        waiting: list[Future[object]] = [
            threads.submit(os.listdir, mount.path / "d0"),
            threads.submit((mount.path / "d1" / "007").read_bytes),
            threads.submit(os.path.exists, mount.path / "missing"),
        ]
        mount.server.kill()
        mount.replace()

        assert sorted(os.listdir(tree / "d0")) == sorted(waiting[0].result(DEADLINE_S))
        assert (tree / "d1" / "007").read_bytes() == waiting[1].result(DEADLINE_S)
        assert waiting[2].result(DEADLINE_S) is False


def test_open_files_listings_and_the_working_directory_go_on(tmp_path, tree):
    (tree / "d").mkdir()
    for number in range(2000):
        (tree / "d" / f"{number:04}-with-a-name-that-fills-a-page").touch()
    (tree / "f").write_bytes(bytes(range(256)) * 40_000)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        mount.learn_flush("f")
        file = os.open(mount.path / "f", os.O_RDONLY)
        beginning = os.pread(file, 100, 0)
        directory = os.open(mount.path / "d", os.O_RDONLY)
        with os.scandir(mount.path / "d") as entries:
            names = [next(entries).name for _ in range(10)]
            inode = os.stat(mount.path / "d").st_ino
            mount.server.kill()
            mount.replace()
            names += [entry.name for entry in entries]

        assert sorted(os.listdir(tree / "d")) == names
        assert (tree / "f").read_bytes()[9_000_000:9_000_100] == os.pread(file, 100, 9_000_000)
        assert bytes(range(100)) == beginning
        assert (inode, inode) == (os.fstat(directory).st_ino, os.stat(mount.path / "d").st_ino)
        assert 0 == os.stat("0042-with-a-name-that-fills-a-page", dir_fd=directory).st_size
        os.close(file)
        os.close(directory)


def test_what_nobody_asks_again_needs_no_second_server(tmp_path, tree):
    fill(tree, 1, 5)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount:
        mount.learn_flush("d0/000")
        before = describe(mount.path)
        mount.server.kill()
        os.listdir(mount.path / "d0")
        mount.replace()

        assert before == describe(mount.path)


@pytest.mark.slow
def test_killing_servers_again_and_again_is_not_noticed(tmp_path, tree):
    """Readers of every kind, among them those that neighbours are pushed for, while servers die at random moments."""
    fill(tree, 12, 150)
    version = Version(tmp_path, tree)
    reader = (
        "import os, sys\n"
        "for root in sys.argv[1:]:\n"
        "    for directory, directories, names in os.walk(root):\n"
        "        directories.sort()\n"
        "        for name in sorted(names):\n"
        "            path = os.path.join(directory, name)\n"
        "            if open(path, 'rb').read() != open(path.replace('/mounted/', '/tree/'), 'rb').read():\n"
        "                sys.exit(path)\n"
    )

    with mounted(tmp_path, version) as mount:
        mount.learn_flush("d0/000")
        end = time.monotonic() + 6
        kills = 0
        while time.monotonic() < end:
            orders = [[f"{mount.path}/d{(shift + place) % 12}" for place in range(12)] for shift in (0, 3, 6)]
            readers = [subprocess.Popen([sys.executable, "-c", reader, *order]) for order in orders]
            while any(each.poll() is None for each in readers) and time.monotonic() < end + DEADLINE_S:
                assert not os.path.exists(mount.path / f"missing-{kills}")  # the new server has begun to answer
                threading.Event().wait(kills % 7 * 0.007)
                # Dead at once: nothing that the server does may keep it from ending before it is replaced.
                mount.server.process.kill()
                mount.server.process.wait(5)
                mount.replace()
                kills += 1
            assert [0, 0, 0] == [each.wait(DEADLINE_S) for each in readers]
            mount.server.process.send_signal(signal.SIGCONT)
            drop_caches_of(mount.fd, version)

    assert kills > 10


def drop_caches_of(fd: int, version: Version) -> None:
    """Have the kernel forget the files' bytes (FUSE_NOTIFY_INVAL_INODE), so that they are read again."""
    view = open_view([version.index])
    for node in view.walk():
        body = node.number.to_bytes(8, "little") + bytes(8) + (-1).to_bytes(8, "little", signed=True)
        with contextlib.suppress(FileNotFoundError):
            os.write(fd, fuse.OUT_HEADER.pack(16 + len(body), 2, 0) + body)
    view.close()


def test_a_push_that_waits_keeps_no_server_alive(tmp_path, tree):
    """The pusher waits for a page whose READ is not answered, and the server is killed: it must be gone at once."""
    fill(tree, 1, 60)

    with mounted(tmp_path, Version(tmp_path, tree)) as mount, ThreadPoolExecutor(1) as thread:
        mount.learn_flush("d0/000")
        names = sorted(os.listdir(mount.path / "d0"))
        for name in names:
            os.stat(mount.path / "d0" / name)
        mount.server.signal(signal.SIGSTOP)
        reading = thread.submit((mount.path / "d0" / names[30]).read_bytes)
        waiting = Path(f"/sys/fs/fuse/connections/{os.stat(mount.path).st_dev & 0xFF}/waiting")
        eventually(lambda: not waiting.exists() or int(waiting.read_text()) > 0, "the read waits in the kernel")
        number = os.stat(mount.path / "d0" / names[30]).st_ino
        pushing = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import os; os.writev({mount.fd}, [{fuse.store_header(number, 0, 2030)!r}, bytes(2030)])",
            ],
            pass_fds=(mount.fd,),
        )
        pidfd = os.pidfd_open(mount.server.pid)
        mount.server.process.kill()

        assert select.select([pidfd], [], [], DEADLINE_S)[0]
        os.close(pidfd)
        mount.server.process.wait()
        mount.replace()
        assert (tree / "d0" / names[30]).stat().st_size == len(reading.result(DEADLINE_S))
        assert 0 == pushing.wait(DEADLINE_S)


def test_a_kernel_that_cannot_resend_is_reported(tmp_path, monkeypatch):
    """EINVAL is what an older kernel answers; an epoll descriptor answers any write so."""
    with select.epoll() as epoll:
        assert ask_again(epoll.fileno()) is False
    monkeypatch.setattr(module, "ask_again", lambda fd: False)
    device = os.open("/dev/fuse", os.O_RDWR)
    try:
        config = module.Config(fuse_fd=device, layers=(), store="file:///nowhere", resend=True, push=False)
        with pytest.MonkeyPatch.context() as quiet:
            quiet.setattr(module.log, "error", lambda *_: None)
            assert module.EXIT_NO_RESEND == module.run(config)
    finally:
        os.close(device)
