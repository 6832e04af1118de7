"""new, mount, commit, finalize, fork, abandon: on real mounts, by every driver."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import pickle
import threading
import warnings
from pathlib import Path

import pytest
from facade_kit import committed, contents, mounts_below, objects, read, working_copies, write

from volume_core import BusyError, InvalidNameError, NotFoundError, ROVolume, RWVolume, Volume, VolumeError
from volume_core.testing.oracle import assert_same_tree, describe
from volume_core.testing.planting import change, plant

DESCRIBE = """
import pickle, sys
from volume_core import Volume
from volume_core.testing.oracle import describe
with Volume.from_locator_sync(sys.argv[1]).mounted_sync(driver=sys.argv[2]) as path:
    pickle.dump(describe(path), open(sys.argv[3], "wb"))
"""


def test_the_whole_way_and_the_same_tree_in_another_process(any_driver, tmp_path, python):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=any_driver)
    (path / "tree").mkdir()
    plant(path / "tree", name_bytes=200 if any_driver == "fuse-overlay" else 255)
    first = volume.commit_sync("one")
    seen_first = describe(path)
    change(path / "tree")
    second = volume.finalize_sync("two")
    python(DESCRIBE, first.locator, any_driver, str(tmp_path / "described"))

    assert not path.exists()
    assert (None, None) == (volume.mount_path, volume.status_sync().working_copy)
    assert ("one", "two") == (first.message, second.message)
    # A mount by fuse-overlayfs says that a sparse file is all data; the version knows better.
    ignore = ["data"] if any_driver == "fuse-overlay" else []
    assert_same_tree(seen_first, pickle.loads((tmp_path / "described").read_bytes()), ignore=ignore)
    assert [second, first] == [entry.volume for entry in second.log_sync()]
    assert [] == second.verify_sync()


def test_an_ordinary_tree_is_the_same_after_the_copy_driver_and_the_kernel(tmp_path, any_driver):
    (tmp_path / "plain").mkdir()
    plain = plant(tmp_path / "plain")
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        (path / "tree").mkdir()
        plant(path / "tree")
    with volume.committed.mounted_sync(driver=any_driver) as path:
        assert_same_tree(plain, path / "tree")


def test_two_commits_of_one_mount_are_parent_and_child(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver) as path:
        write(path, {"a": "1", "b": "1"})
        first = volume.commit_sync()
        write(path, {"a": "2"})
        (path / "b").unlink()
        second = volume.commit_sync()
        write(path, {"c": "3"})
    third = volume.committed

    assert [{"a": "1", "b": "1"}, {"a": "2"}, {"a": "2", "c": "3"}] == [contents(v) for v in (first, second, third)]
    assert [third, second, first] == [entry.volume for entry in third.log_sync()]


def test_nothing_changed_is_the_same_version_and_not_one_object(any_driver):
    version = committed()
    before = objects()
    fork = version.fork_sync("other")
    path = fork.mount_sync(driver=any_driver)
    with open(path / "a.txt", "r+") as file:
        file.read()

    assert version == fork.commit_sync("nothing to say")
    assert version == fork.finalize_sync()
    assert version == fork.commit_sync()
    assert before == objects()
    assert [] == working_copies()


def test_forks_of_one_version_are_written_at_the_same_time_and_know_nothing_of_each_other(driver):
    base = committed(files={"shared": "base"})
    forks = [base.fork_sync(f"fork-{number}") for number in range(2)]
    barrier = threading.Barrier(2)

    def work(fork, number):
        with fork.mounted_sync(driver=driver) as path:
            barrier.wait(30)
            write(path, {"shared": f"by {number}", f"own-{number}": "x"})

    threads = [threading.Thread(target=work, args=(fork, number)) for number, fork in enumerate(forks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert {"shared": "by 0", "own-0": "x"} == contents(forks[0].committed)
    assert {"shared": "by 1", "own-1": "x"} == contents(forks[1].committed)
    assert {"shared": "base"} == contents(base)
    assert [base, base] == [fork.committed.log_sync()[1].volume for fork in forks]


def test_a_locator_is_enough():
    version = committed()

    assert version == Volume.from_locator_sync(version.locator)
    assert version.model_dump_json() == Volume.from_locator_sync(f" {version.locator}\n").model_dump_json()


@pytest.mark.parametrize("locator", ["", "s3://bucket", "file:///x/versions/a/b.json", "versions/a/" + "0" * 64])
def test_what_is_no_locator_is_said_at_once(locator):
    with pytest.raises(InvalidNameError, match="not a locator"):
        Volume.from_locator_sync(locator)


def test_a_version_that_is_not_there_is_not_found():
    version = committed()
    other = version.locator.replace(version.version, "0" * 64)

    with pytest.raises(NotFoundError, match="there is no such version"):
        Volume.from_locator_sync(other)
    with pytest.raises(NotFoundError):
        Volume.from_locator_sync(version.locator.replace("volume-state", "elsewhere"))


def test_abandon_drops_what_was_written_since_the_last_commit(driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"kept": "1"})
    kept = volume.commit_sync()
    write(path, {"dropped": "2"})
    volume.abandon_sync()

    assert not path.exists()
    assert [] == working_copies()
    assert kept == volume.commit_sync()
    with volume.mounted_sync(driver=driver) as path:
        assert {"kept": "1"} == read(path)


def test_abandon_works_while_files_are_open(driver):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    with open(path / "open", "w"):
        volume.abandon_sync()
        assert not path.exists()

    assert [] == working_copies()


def test_unmounting_a_writer_keeps_what_was_written(any_driver):
    volume = Volume.new("data")
    first = volume.mount_sync(driver=any_driver)
    write(first, {"a": "1"})
    volume.unmount_sync()
    assert (None, True) == (volume.mount_path, volume.status_sync().changed)
    version = volume.commit_sync("while it was not mounted")
    second = volume.mount_sync()
    found = read(second)
    write(second, {"b": "2"})
    volume.finalize_sync()

    assert {"a": "1"} == contents(version) == found
    assert {"a": "1", "b": "2"} == contents(volume.committed)
    assert version == volume.committed.log_sync()[1].volume


def test_unmount_refuses_while_files_are_open_and_says_which(driver):
    version = committed()
    path = version.mount_sync(driver=driver)
    with open(path / "a.txt"):
        with pytest.raises(BusyError) as caught:
            version.unmount_sync()
        assert any("a.txt" in each for each in caught.value.paths)
        assert "a" == (path / "a.txt").read_text()
        version.unmount_sync(lazy=True)
    version.unmount_sync()

    assert not path.exists()


def test_mounting_twice_is_mounting_once(driver, tmp_path):
    version = committed()
    writer = version.fork_sync("writer")
    for volume in (version, writer):
        path = volume.mount_sync(driver=driver)

        assert path == volume.mount_sync() == volume.mount_path == volume.mount_sync(path)
        with pytest.raises(BusyError, match=f"already mounted at {path}"):
            volume.mount_sync(tmp_path / "elsewhere")
    writer.abandon_sync()
    version.close_sync()


def test_versions_mount_side_by_side_without_any_argument(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver="copy") as path:
        write(path, {"a": "1"})
        first = volume.commit_sync()
        write(path, {"a": "2"})
    second = volume.committed
    with first.mounted_sync(driver=driver) as one, second.mounted_sync(driver=driver) as two:
        assert ({"a": "1"}, {"a": "2"}) == (read(one), read(two))
        assert one.parent == two.parent == Path(os.environ["VOLUME_MOUNT_ROOT"])


def test_a_version_is_really_read_only(any_driver):
    version = committed()
    with version.mounted_sync(driver=any_driver) as path, pytest.raises(OSError) as caught:
        (path / "new").write_text("x")

    assert errno.EROFS == caught.value.errno
    assert not hasattr(version, "commit")


def test_a_mount_goes_to_the_path_that_was_asked_for(driver, tmp_path):
    version = committed()
    wanted = tmp_path / "some" / "where"
    with version.mounted_sync(wanted, driver=driver) as path:
        assert wanted == path
        assert {"a.txt": "a", "d/b.txt": "b"} == read(wanted)
    assert not wanted.exists()


def test_a_writer_that_fails_commits_nothing_and_says_where_its_files_are(driver):
    volume = committed(files={"a": "1"}).fork_sync("fork")
    before = objects()

    def task():
        with volume.mounted_sync(driver=driver) as path:
            write(path, {"a": "half", "b": "done"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        task()
    [work_id] = working_copies()

    assert before == objects()
    assert any(work_id in note and "volume commit" in note for note in caught.value.__notes__)
    recovered = Volume.recover_sync(work_id)
    assert {"a": "half", "b": "done"} == contents(recovered.finalize_sync("rescued"))
    assert [] == working_copies()


def test_a_writer_that_fails_before_it_wrote_leaves_nothing(driver):
    volume = committed().fork_sync("fork")
    with pytest.raises(ZeroDivisionError), volume.mounted_sync(driver=driver):
        raise ZeroDivisionError

    assert [] == working_copies()


@pytest.mark.loud
def test_finalize_works_while_files_are_open(driver, caplog):
    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    with open(path / "log", "w") as file:
        file.write("before\n")
        file.flush()
        version = volume.finalize_sync()
        assert not path.exists()

    assert {"log": "before\n"} == contents(version)
    assert [] == working_copies()
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.loud
def test_what_is_written_after_the_last_commit_of_finalize_is_kept_and_named(driver, caplog, monkeypatch):
    from volume_core.facade.writers import Writer

    volume = Volume.new("data")
    path = volume.mount_sync(driver=driver)
    write(path, {"a": "1"})
    with open(path / "late", "w") as file, monkeypatch.context() as patched:
        finish = Writer.finish

        def late(self):
            file.write("after the commit")
            file.flush()
            finish(self)

        patched.setattr(Writer, "finish", late)
        version = volume.finalize_sync()
    [work_id] = working_copies()

    assert {"a": "1", "late": ""} == contents(version)
    [record] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "late" in record
    assert work_id in record
    assert {"a": "1", "late": "after the commit"} == contents(Volume.recover_sync(work_id).finalize_sync())


def test_an_empty_volume_can_be_committed_without_a_mount():
    version = Volume.new("data").commit_sync("nothing yet")

    assert {} == contents(version)
    assert (0, 1) == (version.used_bytes, version.inode_count)
    assert [] == working_copies()


def test_a_line_of_its_own_can_begin_where_nothing_changed():
    base = committed()
    before = objects()
    line = base.fork_sync("line").commit_sync("from here on", even_if_unchanged=True)

    assert ("line", "from here on") == (line.name, line.message)
    assert [base] == [entry.volume for entry in line.log_sync()[1:]]
    assert contents(base) == contents(line)
    assert {f"versions/line/{line.version}.json", "heads/line.json"} == objects() - before


def test_an_unchanged_mount_can_begin_a_line_and_go_on(driver):
    fork = committed(files={"a": "1"}).fork_sync("line")
    with fork.mounted_sync(driver=driver) as path:
        first = fork.commit_sync(even_if_unchanged=True)
        write(path, {"b": "2"})
    assert [fork.committed, first] == [entry.volume for entry in fork.committed.log_sync(limit=2)]
    assert {"a": "1", "b": "2"} == contents(fork.committed)


def test_there_is_nothing_to_fork_before_the_first_commit():
    with pytest.raises(VolumeError, match="no version yet"):
        Volume.new("data").fork_sync("other")


def test_a_writers_fork_starts_from_its_last_commit(driver):
    volume = Volume.new("data")
    with volume.mounted_sync(driver=driver) as path:
        write(path, {"a": "1"})
        volume.commit_sync()
        write(path, {"b": "2"})
        fork = volume.fork_sync("fork")

    assert {"a": "1"} == contents(fork.commit_sync())


def test_labels_and_messages_come_back():
    volume = Volume.new("data")
    version = volume.commit_sync("weights", labels={"step": "7", "a": "b"})
    [entry] = version.log_sync()

    assert ("weights", {"a": "b", "step": "7"}) == (entry.volume.message, entry.labels)
    assert entry.created_at.endswith("Z")


def test_both_spellings_do_the_same(driver):
    async def scene():
        volume = Volume.new("data")
        path = await volume.mount(driver=driver)
        write(path, {"a": "1"})
        first = await volume.commit("one")
        await volume.unmount()
        assert (await volume.status()).changed is False
        second = await volume.finalize()
        fork = await (await Volume.from_locator(first.locator)).fork("fork")
        async with fork.mounted(driver=driver, message="two") as path:
            write(path, {"b": "2"})
        async with fork.committed.mounted(driver=driver) as path:
            found = read(path)
        await fork.abandon()
        await fork.close()
        log = await fork.committed.log()
        problems = await fork.committed.verify()
        read_path = await first.mount(driver=driver)
        await first.unmount()
        await first.close()
        return first, second, found, [entry.volume.message for entry in log], problems, read_path.exists()

    first, second, found, messages, problems, is_there = asyncio.run(scene())
    assert first == second
    assert {"a": "1", "b": "2"} == found
    assert ["two", "one"] == messages
    assert ([], False) == (problems, is_there)


def test_every_waiting_method_has_both_spellings():
    for cls in (ROVolume, RWVolume, Volume):
        names = {name for name in dir(cls) if not name.startswith("_")}
        synchronous = {name.removesuffix("_sync") for name in names if name.endswith("_sync")}

        assert synchronous <= names
        assert all(getattr(cls, name).__doc__ for name in synchronous)


def test_empty_is_new_and_deprecated():
    with pytest.warns(DeprecationWarning, match=r"Volume\.new") as caught:
        volume = Volume.empty("data", "s3://bucket", region="eu-west-1")

    assert __file__ == caught[0].filename
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Volume.new("data", "s3://bucket", region="eu-west-1").model_dump() == volume.model_dump()


def test_nothing_stays_mounted(tmp_path):
    assert [] == mounts_below(tmp_path)
