"""A commit is one instant of the tree, with what is in open, un-fsynced and mapped files, and costs what changed."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from facade_kit import committed, contents, eventually, objects, working_copies, write
from tree_kit import remount_and_judge, run_python

from volume_core import BusyError, Volume
from volume_core.parts.compacting import LAYERS_MAX
from volume_core.testing.oracle import assert_same_tree, describe

WRITE_AND_WAIT = """
import mmap, os, sys
path = sys.argv[1]
buffered = open(path + "/flushed", "w"); buffered.write("flushed, not closed"); buffered.flush()
appended = os.open(path + "/appended", os.O_WRONLY | os.O_APPEND | os.O_CREAT); os.write(appended, b"un-fsynced")
mapped = os.open(path + "/mapped", os.O_RDWR | os.O_CREAT); os.ftruncate(mapped, 8192)
pages = mmap.mmap(mapped, 8192); os.close(mapped); pages[4094:4098] = b"page"
gone = open(path + "/gone", "w"); gone.write("no name any more"); gone.flush(); os.unlink(path + "/gone")
print("written", flush=True)
for line in sys.stdin:
    pages[0:4] = line.encode()[:4]
    os.write(appended, line.encode())
    print("stored", flush=True)
"""


@contextlib.contextmanager
def writing_process(path):
    """A process that holds files open and mapped, and stores to them when it is told."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert "written\n" == process.stdout.readline()
        yield process
    finally:
        process.communicate(timeout=30)


def tell(process, text):
    process.stdin.write(f"{text}\n")
    process.stdin.flush()
    assert "stored\n" == process.stdout.readline()


def test_open_unsynced_and_mapped_files_of_another_process_are_in_it(any_driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=any_driver)
    with writing_process(path) as process:
        first = volume.commit_sync()
        tell(process, "once")
        second = volume.commit_sync()
        unchanged = volume.commit_sync()
        tell(process, "more")
        third = volume.finalize_sync()
    found = [contents(version) for version in (first, second, third)]

    page = bytes(4094) + b"page" + bytes(4094)
    assert {"flushed": "flushed, not closed", "appended": "un-fsynced", "mapped": page.decode()} == found[0]
    assert ["once" + page.decode()[4:], "more" + page.decode()[4:]] == [each["mapped"] for each in found[1:]]
    assert ["un-fsyncedonce\n", "un-fsyncedonce\nmore\n"] == [each["appended"] for each in found[1:]]
    assert second == unchanged


def test_each_store_to_a_mapped_page_is_in_the_next_commit(any_driver):
    """Of a file that was made here, and of one of the base; dirty pages and clean ones."""
    volume = committed(files={"of the base": "0" * 5000}).fork_sync("fork")
    path = volume.mount_sync(driver=any_driver)
    (path / "made here").write_bytes(b"0" * 5000)
    found = []
    with contextlib.ExitStack() as stack:
        maps = []
        for name in ("of the base", "made here"):
            file = stack.enter_context(open(path / name, "r+b"))
            maps.append(stack.enter_context(mmap.mmap(file.fileno(), 0)))
        for number in range(5):
            for pages in maps:
                pages[4990:4991] = b"%d" % number
            found.append(volume.commit_sync())
        assert found[-1] == volume.commit_sync()
    volume.abandon_sync()

    for number, version in enumerate(found):
        expected = "0" * 4990 + str(number) + "0" * 9
        assert {"of the base": expected, "made here": expected} == contents(version)


COUNT_OPENS = """
import os, sys
from volume_core import Volume

opened = []
sys.addaudithook(lambda event, arguments: opened.append(arguments[0]) if event == "open" else None)
def ours():
    names = (os.fsdecode(name) for name in opened if isinstance(name, (bytes, str)))
    return [name for name in names if "file-" in name]

volume = Volume.new("data")
path = volume.mount_sync(driver=sys.argv[1])
for directory in range(100):
    os.mkdir(path / f"{directory}")
    for number in range(100):
        (path / f"{directory}" / f"file-{directory}-{number}").write_text(f"{directory} {number}")
opened.clear()
volume.commit_sync()
print(len(ours()))
# What was as new as the first commit may be read once more; from then on nothing is.
volume.commit_sync()
(path / "7" / "file-7-7").write_text("changed")
opened.clear()
volume.commit_sync()
print(*ours())
opened.clear()
os.rename(path / "8" / "file-8-8", path / "8" / "renamed-file-8")
os.rename(path / "10", path / "ten")
os.chmod(path / "9" / "file-9-9", 0o600)
volume.finalize_sync()
print(*ours())
"""


@pytest.mark.slow
def test_a_commit_opens_what_changed_and_nothing_else(driver):
    told = run_python(COUNT_OPENS, driver).splitlines()

    # A file as new as the scan is looked at twice.
    assert ["10000", {"file-7-7"}] == [told[0], set(told[1].split())]
    # chmod and rename move a file's ctime, which may stand for a write; renaming its directory does not.
    assert {"file-9-9", "renamed-file-8"} == set(told[2].split())


def _restored(path, *also):
    """Remember the times of *path* and its directory; return what sets them again."""
    times = [(each, os.stat(each).st_mtime_ns) for each in (path, path.parent, *also)]

    def restore():
        for each, mtime_ns in times:
            os.utime(each, ns=(0, mtime_ns))

    return restore


def _open_to_write(path):
    with open(path, "r+b"):
        pass


def _same_bytes_again(path):
    text = path.read_bytes()
    restore = _restored(path)
    path.write_bytes(text)
    restore()


def _same_mode(path):
    os.chmod(path, path.stat().st_mode & 0o7777)


def _mode_and_back(path):
    mode = path.stat().st_mode & 0o7777
    os.chmod(path, 0o700)
    os.chmod(path, mode)


def _same_owner(path):
    os.chown(path, path.stat().st_uid, path.stat().st_gid)


def _touched_back(path):
    restore = _restored(path)
    subprocess.run(["touch", "-m", path], check=True)
    restore()


def _renamed_and_back(path):
    restore = _restored(path)
    os.rename(path, path.with_name("other"))
    os.rename(path.with_name("other"), path)
    restore()


def _made_again(path):
    text, restore = path.read_bytes(), _restored(path)
    path.unlink()
    path.write_bytes(text)
    restore()


def _something_made_and_removed(path):
    restore = _restored(path)
    path.with_name("passing").mkdir()
    path.with_name("passing").joinpath("file").write_text("x")
    path.with_name("passing").joinpath("file").unlink()
    path.with_name("passing").rmdir()
    restore()


def _directory_away_and_back(path):
    restore = _restored(path, path.parent.parent)
    os.rename(path.parent, path.parent.with_name("other"))
    os.rename(path.parent.with_name("other"), path.parent)
    restore()


def _attribute_and_back(path):
    os.setxattr(path, "user.x", b"1")
    os.removexattr(path, "user.x")


NO_CHANGES = [
    _open_to_write, _same_bytes_again, _same_mode, _mode_and_back, _same_owner, _touched_back, _renamed_and_back,
    _made_again, _something_made_and_removed, _directory_away_and_back, _attribute_and_back,
]  # fmt: skip


@pytest.mark.parametrize("act", NO_CHANGES, ids=lambda act: act.__name__.strip("_"))
def test_nothing_changed_is_the_same_version(driver, act):
    base = committed(files={"d/file": "content", "d/other file": "x", "top": "y"})
    fork = base.fork_sync("fork")
    before = objects()
    path = fork.mount_sync(driver=driver)
    act(path / "d" / "file")
    first = fork.commit_sync()
    again = fork.commit_sync()
    act(path / "d" / "file")
    second = fork.finalize_sync()

    assert [base.locator] * 3 == [first.locator, again.locator, second.locator]
    assert before == objects()
    assert [] == working_copies()


@pytest.mark.parametrize("act", NO_CHANGES, ids=lambda act: act.__name__.strip("_"))
def test_nothing_changed_since_a_commit_of_the_same_mount_is_the_same_version(driver, act):
    volume = committed(files={"d/of the base": "x"}).fork_sync("fork")
    path = volume.mount_sync(driver=driver)
    write(path, {"d/file": "content", "e/f": "1"})
    first = volume.commit_sync()
    before = objects()
    act(path / "d" / "file")
    second = volume.finalize_sync()

    assert first.locator == second.locator
    assert before == objects()


class Writers:
    """Threads that write in a way of which every instant can be told from every mixture."""

    def __init__(self, path: Path, pause_s: float) -> None:
        self.path = path
        self.stop = threading.Event()
        self.rounds = 0
        self._pause_s = pause_s
        write(path, {"before": "0", "after": "0", "token-a": "", "appended": ""})
        self._thread = threading.Thread(target=self._work)

    def _work(self):
        number = 0
        with (
            open(self.path / "before", "r+b", buffering=0) as before,
            open(self.path / "after", "r+b", buffering=0) as after,
            open(self.path / "appended", "ab", buffering=0) as appended,
        ):
            while not self.stop.wait(self._pause_s if number % 5 == 0 else 0):
                number += 1
                os.pwrite(before.fileno(), b"%08d" % number, 0)
                here, there = ("token-a", "token-b") if number % 2 else ("token-b", "token-a")
                os.rename(self.path / here, self.path / there)
                appended.write(b"%08d" % number)
                os.pwrite(after.fileno(), b"%08d" % number, 0)
                self.rounds = number

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self.stop.set()
        self._thread.join(30)


def assert_one_instant(found):
    before, after = int(found["before"]), int(found["after"])
    count = len(found["appended"]) // 8
    assert after <= before <= after + 1
    assert count in {after, before}
    assert "".join(f"{number:08}" for number in range(1, count + 1)) == found["appended"]
    [token] = {"token-a", "token-b"} & found.keys()
    assert token == ("token-b" if before % 2 else "token-a") or (before == after + 1 and count == after)


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.0, 0.03, 0.3])
def test_a_commit_while_a_thread_writes_is_one_instant_or_names_what_is_busy(driver, pause_s):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {f"still/{number}": "x" for number in range(200)})
    versions, refused = [], []
    with Writers(path, pause_s) as writers:
        assert eventually(lambda: writers.rounds > 0)
        for _ in range(6):
            try:
                versions.append(volume.commit_sync())
            except BusyError as error:
                refused.append(error.paths)
        end = writers.rounds
    last = volume.finalize_sync()

    assert end > 0
    for version in (*versions, last):
        assert_one_instant(contents(version))
    for paths in refused:
        assert set(paths) <= {".", "before", "after", "appended", "token-a", "token-b"}
        assert paths
    assert pause_s < 0.3 or versions
    assert_same_names(contents(last), writers.rounds)


def assert_same_names(found, rounds):
    assert (f"{rounds:08}", f"{rounds:08}") == (found["before"], found["after"])


@pytest.mark.loud
def test_a_store_to_a_mapped_page_after_finalizes_commit_is_kept_and_named(driver, caplog, monkeypatch):
    from volume_core.facade.writers import Writer

    volume = committed(files={"mapped": "0" * 4096, "other": "x"}).fork_sync("fork")
    path = volume.mount_sync(driver=driver)
    with open(path / "mapped", "r+b") as file, mmap.mmap(file.fileno(), 0) as pages, monkeypatch.context() as patched:
        pages[0:1] = b"1"
        finish = Writer.finish

        def late(self):
            pages[0:1] = b"2"
            finish(self)

        patched.setattr(Writer, "finish", late)
        version = volume.finalize_sync()
        assert not path.exists()
    [work_id] = working_copies()

    assert "1" + "0" * 4095 == contents(version)["mapped"]
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "mapped" in warning
    assert "other" not in warning
    assert work_id in warning
    recovered = Volume.recover_sync(work_id)
    assert {"mapped": "2" + "0" * 4095, "other": "x"} == contents(recovered.finalize_sync())


def test_finalize_with_files_of_every_sort_open(any_driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=any_driver)
    (path / "dir").mkdir()
    inside = os.open(path / "dir", os.O_RDONLY)
    with writing_process(path):
        version = volume.finalize_sync()
        assert not path.exists()
    os.close(inside)

    assert {"flushed", "appended", "mapped"} == contents(version).keys()
    assert [] == working_copies()


FORK_AND_WRITE = """
import os, sys
from volume_core import Volume
fork = Volume.from_locator_sync(sys.argv[1]).fork_sync(sys.argv[2])
path = fork.mount_sync(driver=sys.argv[3])
print("mounted", flush=True)
sys.stdin.readline()
for number in range(300):
    (path / "shared" / f"{number}").write_text(sys.argv[2])
    if number % 3 == 0:
        os.unlink(path / "shared" / f"base-{number}")
print(fork.finalize_sync().locator)
"""


def test_two_processes_write_two_forks_at_the_same_time(driver):
    base = committed(files={f"shared/base-{number}": str(number) for number in range(300)})
    names = ("one", "two")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", FORK_AND_WRITE, base.locator, name, driver],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in names
    ]  # fmt: skip
    assert ["mounted\n"] * 2 == [process.stdout.readline() for process in processes]
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    versions = [Volume.from_locator_sync(process.communicate(timeout=60)[0]) for process in processes]

    kept = {f"shared/base-{number}": str(number) for number in range(300) if number % 3}
    for name, version in zip(names, versions, strict=True):
        assert kept | {f"shared/{number}": name for number in range(300)} == contents(version)
        assert [version, base] == [entry.volume for entry in version.log_sync()]
        assert [] == version.verify_sync()


@pytest.mark.slow
def test_forks_of_forks_show_the_same_tree_after_compaction(driver, tmp_path):
    """Each generation is a fork of the last, in another volume; some commit twice under one mount."""
    version = committed("generation-0", {f"d/{number}": "0" for number in range(60)})
    plain = tmp_path / "plain"
    plain.mkdir()
    write(plain, {f"d/{number}": "0" for number in range(60)})
    stacks = []
    for generation in range(1, 2 * LAYERS_MAX + 2):
        fork = version.fork_sync(f"generation-{generation}")
        path = fork.mount_sync(driver=driver)
        for root in (plain, path):
            _next_generation(root, generation)
        if generation % 3 == 0:
            fork.commit_sync("in between")
            for root in (plain, path):
                write(root, {f"d/{generation}": "twice"})
        was = describe(path)
        version = fork.finalize_sync(f"{generation}")
        with version.mounted_sync(driver=driver) as path:
            assert_same_tree(was, path)
            assert_same_tree(plain, path, ignore=["mtime_ns"])
        stacks.append(len(version._existing().manifest.stack))
    log = version.log_sync()

    assert LAYERS_MAX >= max(stacks)
    assert any(later < earlier for earlier, later in itertools.pairwise(stacks))
    assert "generation-0" == log[-1].volume.name
    assert 2 * LAYERS_MAX + 2 + (2 * LAYERS_MAX + 1) // 3 == len(log)
    assert [] == version.verify_sync()
    remount_and_judge(plain, version, tmp_path / "m", driver=driver, rsync=False, ignore=["mtime_ns"])


def _next_generation(root, number):
    write(root, {f"d/{number}": str(number), f"new-{number}/file": str(number)})
    (root / "d" / f"{number + 20}").unlink()
    if number > 2:
        os.rename(root / f"new-{number - 1}", root / "d" / f"moved-{number}")
    if number > 4:
        (root / "d" / f"moved-{number - 1}" / "file").unlink()
    os.chmod(root / "d" / f"{number + 21}", 0o600)


def test_uncommitted_changes_cannot_be_pickled(any_driver):
    volume = committed().fork_sync("fork")
    path = volume.mount_sync(driver=any_driver)
    assert volume.index == pickle.loads(pickle.dumps(volume)).index
    (path / "new").write_text("x")
    with pytest.raises(TypeError, match="commit first"):
        pickle.dumps(volume)
    version = volume.commit_sync()
    again = pickle.loads(pickle.dumps(volume))
    with open(path / "new", "r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        pages[0:1] = b"y"
        with pytest.raises(TypeError, match="commit first"):
            pickle.dumps(volume)
    volume.abandon_sync()

    assert version == pickle.loads(pickle.dumps(version))
    assert (version.locator, None) == (again.index, again.mount_path)
