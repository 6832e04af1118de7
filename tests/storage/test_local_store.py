"""The directory store keeps the contract, survives kill -9, and says what a full disk needs."""

import errno
import fcntl
import itertools
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from volume_core.errors import ConflictError, InvalidNameError, NotFoundError, StorageError
from volume_core.storage.local import LEFTOVER_AGE_S, LocalStore
from volume_core.storage.opening import open_store
from volume_core.testing.stores import RawDirectory, StoreContract


@pytest.fixture
def root(tmp_path):
    return tmp_path / "st ore"


@pytest.fixture
def raw(root):
    return RawDirectory(root)


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, root):
        return open_store(str(root))


class TestLocalStoreWhereNothingCanBeLinked(StoreContract):
    """As on vfat and many FUSE file systems."""

    @pytest.fixture
    def store(self, root, monkeypatch):
        def link(*_, **__):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", link)
        return open_store(str(root))


@pytest.fixture
def local(root):
    return LocalStore(root)


def own_files(root):
    return [path for path in (root / ".store" / "tmp").rglob("*") if path.is_file()]


def test_the_url_is_percent_encoded_and_the_root_is_not(local, root):
    assert f"file://{str(root).replace(' ', '%20')}" == local.url
    assert root == local.local_root


def test_opening_and_reading_make_no_directory(local, root):
    with pytest.raises(NotFoundError):
        local.get("a")
    assert [] == list(local.names(""))
    local.delete("a")

    assert not root.exists()


def test_an_object_is_a_file_under_its_own_name(local, root):
    local.put_new("packs/ab/abc", b"bytes")

    assert b"bytes" == (root / "packs" / "ab" / "abc").read_bytes()
    assert [] == own_files(root)


def test_the_stores_own_folder_is_neither_listed_nor_named(local, root):
    local.put("a", b"x")
    (root / ".store" / "tmp" / "leftover").write_bytes(b"half of an obj")

    assert ["a"] == [found.name for found in local.names("")]
    assert [] == list(local.names(".store/")) == list(local.names(".store/tmp/")) == list(local.names(".s"))
    for name in (".store", ".store/tmp/leftover"):
        with pytest.raises(InvalidNameError, match="own"):
            local.get(name)


def test_files_of_others_whose_names_are_not_text_are_no_objects(local, root):
    local.put("a", b"x")
    with open(os.fsencode(root) + b"/b\xff", "wb"):
        pass

    assert ["a"] == [found.name for found in local.names("")]


def test_modes_follow_the_umask(root):
    previous = os.umask(0o027)
    try:
        LocalStore(root).put_new("packs/ab/abc", b"x")
        LocalStore(root).put("heads/h", b"x")
    finally:
        os.umask(previous)

    assert 0o640 == stat.S_IMODE((root / "packs/ab/abc").stat().st_mode)
    assert 0o640 == stat.S_IMODE((root / "heads/h").stat().st_mode)
    assert 0o750 == stat.S_IMODE((root / "packs/ab").stat().st_mode)


def test_old_leftovers_of_the_dead_are_removed_and_those_of_the_living_kept(root):
    LocalStore(root).put("a", b"x")
    old = time.time() - LEFTOVER_AGE_S - 60
    for name in ("dead", "living", "young"):
        (root / ".store" / "tmp" / name).write_bytes(b"half")
    for name in ("dead", "living"):
        os.utime(root / ".store" / "tmp" / name, (old, old))
    with open(root / ".store" / "tmp" / "living", "rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        LocalStore(root).put("b", b"x")

    assert {"living", "young"} == {path.name for path in own_files(root)}


def test_an_object_below_an_object_is_refused(local):
    local.put_new("a", b"x")

    with pytest.raises(StorageError, match="object") as caught:
        local.put_new("a/b", b"y")
    assert not caught.value.transient
    with pytest.raises(NotFoundError):
        local.get("a/b")


def test_a_folder_is_no_object(local):
    local.put_new("a/b", b"x")

    for call in (local.get, local.info, lambda name: local.get_range(name, 0, 1)):
        with pytest.raises(NotFoundError):
            call("a")
    local.delete("a")
    assert b"x" == local.get("a/b")


@pytest.mark.parametrize(("number", "said"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota")])
def test_a_full_disk_is_permanent_and_leaves_nothing(local, root, monkeypatch, number, said):
    local.put("before", b"x")

    def fsync(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    for call in (local.put_new, local.put, lambda name, data: local.swap(name, None, data)):
        with pytest.raises(StorageError, match=said) as caught:
            call("packs", b"a pack")
        assert not caught.value.transient
    monkeypatch.undo()

    assert [] == own_files(root)
    assert ["before"] == [found.name for found in local.names("")]


FILL = """
    import sys
    from volume_core.errors import StorageError
    from volume_core.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    store.put_new("small", b"x" * 100_000)
    try:
        store.put_new("large", b"x" * 4_000_000)
    except StorageError as error:
        assert not error.transient
        assert "disk is full" in str(error), error
    else:
        raise AssertionError("there was room")
    assert ["small"] == [found.name for found in store.names("")]
    store.put_new("fits", b"x" * 800_000)   # which it would not, had the large one's part stayed
    print("as it should be")
"""


def test_a_really_full_disk(tmp_path):
    """In a mount namespace of its own, on a file system of 1 MiB."""
    mount = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}/store'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, textwrap.dedent(FILL)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespaces here: {done.stderr.strip()}")

    assert ("as it should be\n", "") == (done.stdout, done.stderr)


STEPS = ("open", "write", "fsync", "link", "rename", "unlink", "mkdir", "close")


def die_at(step):
    """Make this process end as by kill -9 at its *step*-th call that changes a file; a write is then half done."""
    counter = itertools.count(1)

    def patched(name, real):
        def call(*args, **kwargs):
            if next(counter) == step:
                if name == "write":
                    real(args[0], args[1][: len(args[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    for name in STEPS:
        setattr(os, name, patched(name, getattr(os, name)))


WRITES = {
    "put_new": lambda store: store.put_new("heads/new", NEW),
    "put": lambda store: store.put("heads/old", NEW),
    "swap of nothing": lambda store: store.swap("heads/new", None, NEW),
    "swap": lambda store: store.swap("heads/old", OLD, NEW),
    "delete": lambda store: store.delete("heads/old"),
}
OLD, NEW = b"old " * 10_000, b"new " * 20_000


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.faults
@pytest.mark.parametrize("write", WRITES)
def test_kill_9_at_every_system_call_leaves_whole_objects_only(root, write):
    before = {"heads/old": OLD}
    after = {
        "delete": {},
        "put": {"heads/old": NEW},
        "swap": {"heads/old": NEW},
    }.get(write, before | {"heads/new": NEW})
    states = []
    for step in itertools.count(1):
        shutil.rmtree(root, ignore_errors=True)
        LocalStore(root).put("heads/old", OLD)
        child = os.fork()
        if child == 0:
            die_at(step)
            WRITES[write](LocalStore(root))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        store = LocalStore(root)
        found = {each.name: store.get(each.name) for each in store.names("")}

        assert found in (before, after), f"killed at call {step}"
        states.append(found == after)
        if status == 0:
            break
        # No lock of the dead one is in the next writer's way.
        store.swap("heads/old", found.get("heads/old"), b"the next")
    assert states == sorted(states), "it went back"
    assert [False, True] == [states[0], states[-1]]
    assert len(states) > (4 if write == "delete" else 8)


WRITE_FOR_EVER = """
    import itertools, sys
    from volume_core.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    head = None
    for number in itertools.count():
        data = b"%d " % number * 60_000
        store.put_new(f"packs/{number:04d}", data)
        store.put("leases/x", data)
        store.swap("heads/v", head, data)
        head = data
        print(number, flush=True)
"""


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(3))
def test_what_was_reported_before_a_kill_9_is_there(root, seed):
    chance = random.Random(seed)
    writer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITE_FOR_EVER), str(root)], stdout=subprocess.PIPE, text=True
    )
    with writer:
        said = [int(writer.stdout.readline()) for _ in range(chance.randrange(3, 12))]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().split()]
    store = LocalStore(root)
    found = {each.name: store.get(each.name) for each in store.names("")}

    assert {f"packs/{number:04d}" for number in said} <= set(found)
    assert max(said) <= int(found["heads/v"].split()[0])
    for name, data in found.items():
        assert data == (data.split(b" ", 1)[0] + b" ") * 60_000, name


def increment(arguments):
    root, times = arguments
    store = LocalStore(root)
    for _ in range(times):
        while True:
            old = store.get("n")
            try:
                store.swap("n", old, b"%d" % (int(old) + 1))
                break
            except ConflictError:
                continue


def test_swaps_of_many_processes_lose_nothing(root):
    LocalStore(root).swap("n", None, b"0")
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        list(pool.map(increment, [(str(root), 25)] * 4))

    assert b"100" == LocalStore(root).get("n")


def test_a_range_beyond_the_size_of_memory_costs_only_what_is_there(local):
    local.put("a", b"0123456789")

    assert b"56789" == local.get_range("a", 5, 1 << 30)


LOOK = """
    import os, sys
    from volume_core.errors import StorageError
    from volume_core.storage.local import LocalStore
    store = LocalStore(sys.argv[1])
    if os.geteuid() == 0:
        os.setuid(65534)   # root may read anything
    for call in (lambda: store.get("a"), lambda: store.put_new("b", b"x"), lambda: list(store.names(""))):
        try:
            call()
        except StorageError as error:
            print(error.transient, error)
"""


def test_a_directory_that_is_not_ours_says_what_to_check(local, root):
    local.put("a", b"x")
    root.chmod(0)
    command = [sys.executable, "-c", textwrap.dedent(LOOK), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    root.chmod(0o700)
    lines = done.stdout.splitlines()

    assert ["False cannot read", "False cannot write", "False cannot list"] == [
        line.split(" file:")[0] for line in lines
    ]
    assert all("check the owner and mode" in line for line in lines)


def test_a_network_file_systems_hiccup_is_transient(local, monkeypatch):
    def fsync(_):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError) as caught:
        local.put("a", b"x")
    assert caught.value.transient
